//! What a shell writes as `${#name}` is no comment of a template.

use std::borrow::Cow;

/// The template with each `{#` that begins no comment marked as text: one that follows a `$`, and one that nothing ends. Tags and
/// what is `raw` already are left as they are, and so are lines. It takes time in proportion to the length.
pub(super) fn shielded(template: &str) -> Cow<'_, str> {
    const LITERAL: &str = "{% raw %}{#{% endraw %}";
    if !template.contains("{#") {
        return template.into();
    }
    let last_end = template.rfind("#}").unwrap_or(0);
    let (mut text, mut rest, mut before) = (String::with_capacity(template.len() + LITERAL.len()), template, ' ');
    while let Some(at) = next_mark(rest) {
        let (data, tag) = rest.split_at(at);
        text.push_str(data);
        before = data.chars().next_back().unwrap_or(before);
        let begins = template.len() - tag.len();
        let length = if !tag.starts_with("{#") {
            tag_length(tag)
        } else if before != '$' && last_end >= begins + 2 {
            tag[2..].find("#}").map_or(tag.len(), |end| end + 4)
        } else {
            text.push_str(LITERAL);
            rest = &tag[2..];
            before = '#';
            continue;
        };
        text.push_str(&tag[..length]);
        rest = &tag[length..];
        before = '}';
    }
    text.push_str(rest);
    text.into()
}

/// Where the next tag or comment begins.
fn next_mark(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, [b'{', b'{' | b'%' | b'#']))
}

/// How long the tag is that a text begins with, up to its end tag where it is `raw`.
fn tag_length(tag: &str) -> usize {
    let end = if tag.starts_with("{{") { "}}" } else { "%}" };
    let (mut quote, mut escaped) = (None, false);
    let mut length = tag.len();
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if tag[at..].starts_with(end) => {
                length = at + 2;
                break;
            }
            None => {}
        }
    }
    const CONTROL: [char; 2] = ['-', '+'];
    let opens = |text: &str| text.trim_end().trim_end_matches(CONTROL).ends_with("{%");
    let closes = |text: &str| {
        let rest = text.trim_start().trim_start_matches(CONTROL);
        rest.starts_with("%}").then(|| text.len() - rest.len() + 2)
    };
    let raw = tag.starts_with("{%")
        && tag[..length].split("raw").next().is_some_and(|head| head.len() < length && opens(head));
    if !raw || closes(tag[..length].split_once("raw").map_or("", |(_, tail)| tail)).is_none() {
        return length;
    }
    let ends = tag.match_indices("endraw").filter(|(at, _)| *at >= length && opens(&tag[..*at]));
    let mut ends = ends.filter_map(|(at, word)| Some(at + word.len() + closes(&tag[at + word.len()..])?));
    ends.next().unwrap_or(tag.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Mode, names, render};

    fn filled(template: &str) -> String {
        render(template, Mode::Text, &json!({"x": 7})).unwrap_or_else(|error| panic!("{template}: {error}"))
    }

    #[test]
    fn shell_is_written_as_it_stands() {
        for text in [
            "name=abc; echo \"${#name} characters\"",
            "length=${#1} keep=7\n#former() {\n#  keep=14\n#}\nls",
            "awk '{# no comment\n print }' # }\n#}",
            "body{#main}",
            "{#",
        ] {
            assert_eq!(filled(text), text);
            assert_eq!(names(text), Ok(Vec::new()), "{text}");
        }
    }

    /// Found by reading: each mark looked through all that is behind it.
    #[test]
    fn a_long_text_takes_no_longer_than_it_is_long() {
        for part in ["{#", "${#x}", "{%", "{% raw %}", "{{", "endraw", "#}"] {
            let text = part.repeat((256 << 10) / part.len());
            super::shielded(&text);
            super::shielded(&format!("{text}#}}"));
            super::shielded(&format!("{{% raw %}}{text}"));
        }
    }

    #[test]
    fn beside_variables_only_what_is_closed_and_follows_no_dollar_is_a_comment() {
        for (template, text) in [
            ("{{ x }} ${#a} {#no#}${#b}#}", "7 ${#a} ${#b}#}"),
            ("{{ x }}{# open", "7{# open"),
            ("{{ '{#' ~ \"#}\" }}${#a}", "{##}${#a}"),
            ("{% raw %}${#a} {{ y }}{% endraw %}${#b}{{ x }}", "${#a} {{ y }}${#b}7"),
            ("{%- raw -%} ${#a}{# #} {%- endraw -%} {{ x }}", "${#a}{# #}7"),
            ("{% if x %}${#a}{% endif %}", "${#a}"),
        ] {
            assert_eq!(filled(template), text, "{template}");
        }
    }
}
