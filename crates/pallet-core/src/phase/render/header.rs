//! The first line of a template that says how lines with tags are written, as Ansible has it:
//! `#jinja2: trim_blocks: true, lstrip_blocks: true`.

use super::bounds::Lines;

const MARK: &str = "#jinja2:";

/// Whether a text begins with such a line.
pub(super) fn is_there(text: &str) -> bool {
    text.starts_with(MARK)
}

/// What the first line says, and the template without it.
///
/// # Errors
/// It says what is not known.
pub(super) fn read(template: &str) -> Result<(Lines, &str), String> {
    let Some(rest) = template.strip_prefix(MARK) else { return Ok((Lines::default(), template)) };
    let (line, template) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut lines = Lines::default();
    for part in line.split(',') {
        let (name, value) = part.split_once(':').unwrap_or((part, ""));
        let value = match value.trim() {
            "true" | "True" => true,
            "false" | "False" => false,
            _ => return Err(format!("{MARK}{line}: it is to be {MARK} trim_blocks: true, lstrip_blocks: true")),
        };
        match name.trim() {
            "trim_blocks" => lines.trims = value,
            "lstrip_blocks" => lines.strips = value,
            other => return Err(format!("{MARK} there is no {other}; trim_blocks and lstrip_blocks are")),
        }
    }
    Ok((lines, template))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Mode, names, render};

    #[test]
    fn the_first_line_says_how_lines_with_tags_are_written() {
        let body = "{% for x in l %}\n  {% if x %}\n- {{ x }}\n  {% endif %}\n{% endfor %}\n";
        let filled = |head: &str| render(&format!("{head}{body}"), Mode::Text, &json!({"l": [1, 2]}));
        assert_eq!(filled("#jinja2: trim_blocks: true, lstrip_blocks: true\n").unwrap(), "- 1\n- 2\n");
        assert_eq!(filled("#jinja2:trim_blocks:True\n").unwrap(), "  - 1\n    - 2\n  ");
        assert_eq!(filled("").unwrap(), "\n  \n- 1\n  \n\n  \n- 2\n  \n\n");
        assert_eq!(render("#jinja2: trim_blocks: true\nplain\n", Mode::Text, &json!({})).unwrap(), "plain\n");
        for head in
            ["#jinja2: trim_blocks\n", "#jinja2: newline_sequence: x\n", "#jinja2: variable_start_string: true\n"]
        {
            assert!(filled(head).is_err(), "{head}");
            assert!(names(&format!("{head}{{{{ x }}}}")).is_err(), "{head}");
        }
    }
}
