use serde_json::{Value as Json, json};

use crate::phase::{
    budget::Budget,
    render::{Mode, constant, names, render},
};

fn context() -> Json {
    let long: Vec<String> = (0..500).map(|n| format!("{n:040}")).collect();
    json!({
        "facts": {"long": long, "text": "x".repeat(4096), "name": "web", "deep": {"a": {"b": [1, 2, 3]}}},
        "node": {"name": "web-1", "ordinal": 1},
        "settings": {"port": 8080},
    })
}

fn filled(template: &str) -> String {
    render(template, Mode::Text, &context()).unwrap_or_else(|message| panic!("{template}: {message}"))
}

#[test]
fn what_templates_usually_say_means_what_it_did() {
    for (template, text) in [
        ("{{ node.name ~ '-' ~ settings.port }}", "web-1-8080"),
        ("{{ 'a' + 'b' }}{{ 1 + 2 }}{{ [1] + [2] }}{{ (1,) + (2,) }}", "ab3[1, 2](1, 2)"),
        (
            "{{ 60 * 60 * 24 * 365 }} {{ '-' * 3 }}{{ 2 * '-' }}{{ [0] * 3 }}{{ settings.port * 2 }}{{ 1.5 * 2 }}{{ 2 * 3 }}",
            "31536000 -----[0, 0, 0]161603.06",
        ),
        ("{{ 7 - 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 10 }} {{ -settings.port }}", "5 3.5 3 1 1024 -8080"),
        (
            "{% for n in range(3) %}{{ loop.index }}:{{ n }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "1:0, 2:1, 3:2",
        ),
        ("{% for n in range(9) if n is even %}{{ n }}{% else %}none{% endfor %}", "02468"),
        ("{% for k, v in {'a': 1, 'b': 2} | items %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;"),
        ("{% set a, b = 1, 2 %}{{ a }}{{ b }}{% with c = a %}{{ c }}{% endwith %}", "121"),
        ("{% set x %}a\n{% endset %}{{ x | trim }}{% filter upper %}b{% endfilter %}", "aB"),
        ("{{ facts.long[0][-2:] }}{{ facts.long[:2] | length }}{{ facts['name'] }}{{ 'abc'[1] }}", "002webb"),
        ("{{ 'b' in ['a', 'b'] }}{{ 'x' not in 'abc' }}{{ 1 < 2 < 3 }}{{ 1 == 1 and not false }}", "TrueTrueTrueTrue"),
        (
            "{{ facts.deep.a.b | map('string') | join(',') }}|{{ facts.deep | tojson }}",
            "1,2,3|{\"a\": {\"b\": [1, 2, 3]}}",
        ),
        (
            "{{ facts.gone | default('none') }}{{ facts.gone is defined }}{{ 'y' if facts.name == 'web' else 'n' }}",
            "noneFalsey",
        ),
        (
            "{{ [3, 1, 2] | sort | first }}{{ [1, 2] | sum }}{{ 'a b' | split | last }}{{ 'a' | replace('a', 'b') }}",
            "13bb",
        ),
        ("{{ [{'n': 1}, {'n': 2}] | selectattr('n', 'gt', 1) | map(attribute='n') | list }}", "[2]"),
        (
            "{{ '%s-%03d' | format('a', 7) }}{{ 'a\nb' | indent(2) }}{{ dict(a=1).a }}{{ 3.7 | round | int }}",
            "a-007a\n  b14",
        ),
        (
            "{{ [1, 2, 3] | batch(2) | list }}{{ {'a': 1} | dictsort }}{{ [1, 1] | unique | list }}",
            "[[1, 2], [3]][('a', 1)][1]",
        ),
        ("a{# no #}b{% raw %}{{ c }}{% endraw %}\n", "ab{{ c }}\n"),
        ("{% for n in [1, 2] -%}\n  n{{ n }}\n{% endfor %}", "n1\nn2\n"),
    ] {
        assert_eq!(filled(template), text, "{template}");
    }
}

#[test]
fn what_is_undefined_is_still_named() {
    for template in [
        "{{ facts.gone * 2 }}",
        "{{ 'a' ~ facts.gone }}",
        "{{ facts.gone + 1 }}",
        "{{ facts.gone | upper }}",
        "{% for x in facts.gone %}{% endfor %}",
        "{{ facts.gone == 1 }}",
        "{{ facts.gone[0] }}",
    ] {
        let outcome = render(template, Mode::Text, &context());
        assert!(
            outcome.as_ref().is_err_and(|fault| fault.to_string().contains("undefined")),
            "{template}: {outcome:?}"
        );
    }
    for template in ["{{ facts.gone * 2 }}", "{{ 'a' ~ facts.gone }}", "{{ facts.gone + 1 }}"] {
        let message = render(template, Mode::Text, &context()).unwrap_err();
        assert!(message.to_string().contains("`facts.gone` is undefined"), "{template}: {message}");
    }
}

/// Found by random templates: the engine's own slices end the process on empty lists.
#[test]
fn slices_are_pythons() {
    for (template, text) in [
        ("{{ [][::-1] }}{{ ''[::-1] }}{{ []|list }}{{ none[1:] }}", "[][][]"),
        (
            "{{ 'abc'[1:9:-1] }}|{{ 'abc'[::-1] }}|{{ 'abc'[9::-1] }}|{{ 'abc'[:0:-1] }}|{{ 'abc'[-2:-9:-1] }}",
            "|cba|cba|cb|ba",
        ),
        (
            "{{ 'abcdef'[1:4] }}|{{ 'abcdef'[-2:] }}|{{ 'abcdef'[:-4] }}|{{ 'abcdef'[::2] }}|{{ 'héllo'[1:3] }}",
            "bcd|ef|ab|ace|él",
        ),
        ("{{ [1, 2, 3][1:] }}{{ [1, 2, 3][5:] }}{{ (1, 2, 3)[::-2] }}{{ range(9)[2:5] }}", "[2, 3][](3, 1)[2, 3, 4]"),
        ("{{ [1, 2, 3][::9223372036854775807] }}{{ [1, 2][-9223372036854775807:] }}", "[1][1, 2]"),
    ] {
        assert_eq!(filled(template), text, "{template}");
    }
    for template in ["{{ 'abc'[::0] }}", "{{ 'abc'['a':] }}", "{{ 1[1:] }}", "{{ facts.gone[1:] }}"] {
        assert!(render(template, Mode::Text, &context()).is_err(), "{template}");
    }
}

#[test]
fn what_the_engine_fails_on_is_an_error_of_the_template() {
    let outcome: Result<(), _> =
        super::unharmed(|| [(); 0].get(1).map_or_else(|| panic!("as an engine might"), |()| Ok(())));
    assert!(outcome.unwrap_err().to_string().contains("engine failed"));
}

#[test]
fn quotes_are_paid_for() {
    let context = json!({"x": "'".repeat(4096)});
    let message = render("{% set a = x * 500 %}echo {{ a }}", Mode::Shell, &context).unwrap_err();
    assert!(message.to_string().contains("more than 16 MiB"), "{message}");
}

/// Found by review: what a filter had marked as safe for HTML went into scripts as it was.
#[test]
fn only_raw_leaves_a_value_unquoted() {
    let hostile = json!({"facts": {"x": "$(touch /tmp/x)"}});
    for template in [
        "{{ facts.x | tojson }}",
        "{{ [facts.x] | tojson | trim }}",
        "{{ facts.x | tojson | indent }}",
        "{% set y %}{{ facts.x }}{% endset %}{{ y }}",
        "{% for i in [1] %}{{ facts.x }}{% endfor %}",
    ] {
        let script = render(template, Mode::Shell, &hostile).unwrap();
        assert_eq!(shlex::split(&script).unwrap().len(), 1, "{template}: {script}");
        assert!(script.starts_with(['\'', '"']) && !script.starts_with("\"$"), "{template}: {script}");
    }
    for template in [
        "{{ facts.x | safe }}",
        "{{ facts.x | escape }}",
        "{{ facts.x | e }}",
        "{% autoescape true %}{% set y %}{{ facts.x }}{% endset %}{% endautoescape %}{{ y }}",
    ] {
        assert!(render(template, Mode::Shell, &hostile).is_err(), "{template}");
    }
}

#[test]
fn parameters_have_the_same_bounds() {
    let params = json!({"x": "x".repeat(4096)});
    for template in ["{{ params.x * 9000 }}", "{{ [params.x] * 9000 }}", "{{ params.x }}{{ params.x * 9000 }}"] {
        let message = constant(&json!({"deep": [template]}), Some(&params), &Budget::new()).unwrap_err();
        assert!(message.to_string().contains("more than 16 MiB"), "{template}: {message}");
    }
    let message = constant(&json!("{{ params.x * 900 }}"), Some(&params), &Budget::new()).unwrap_err();
    assert!(message.to_string().contains("more than 1 MiB"), "{message}");
    assert!(constant(&json!(format!("{{{{ {}1 }}}}", "-".repeat(60_000))), Some(&params), &Budget::new()).is_err());
    assert_eq!(constant(&json!("{{ [1, 'a'] + [2] }}"), Some(&params), &Budget::new()).unwrap(), json!([1, "a", 2]));
    assert_eq!(constant(&json!("{{ 2 * 3 }}"), Some(&params), &Budget::new()).unwrap(), json!(6));
}

/// A worker thread has twice as much.
#[test]
fn what_is_as_deep_as_allowed_does_not_fill_the_stack() {
    let again = |text: &str, times: usize| text.repeat(times);
    let ifs = (again("{% if 1 %}", 140), again("{% endif %}", 140));
    for inner in [
        format!("{{{{ {}1 }}}}", again("-", 299)),
        format!("{{{{ {}true }}}}", again("not ", 299)),
        format!("{{{{ {}1 }}}}", again("- not ", 149)),
        format!("{{{{ 1{} }}}}", again("+1", 299)),
        format!("{{{{ 1{} }}}}", again("~1", 299)),
        format!("{{{{ 1{} }}}}", again("**1", 299)),
        format!("{{{{ facts.text{} }}}}", again("[0]", 299)),
        format!("{{{{ facts.text{} }}}}", again("[:]", 298)),
        format!("{{{{ 1{} }}}}", again("|abs", 299)),
        format!("{{{{ {}1 }}}}", again("1 if 0 else ", 145)),
        format!("{{{{ {}1{} }}}}", again("[", 140), again("]", 140)),
        format!("{{{{ {}1{} }}}}", again("(-", 140), again(")", 140)),
        format!("{{{{ {}1{} }}}}", again("{1:", 140), again("}", 140)),
        format!("{{% set {}a{} = 1 %}}", again("(", 290), again(")", 290)),
        format!("{{{{ {}1{} }}}}", again("[1]|map('abs',", 60), again(")", 60)),
        format!("{{% if 0 %}}{}{{% endif %}}", again("{% elif 0 %}", 300)),
        again("{% set a %}", 140) + &again("{% endset %}", 140),
        format!("{{% set a = [1] %}}{}{{{{ a }}}}{{{{ a == a }}}}{{{{ a | tojson }}}}", again("{% set a = [a] %}", 60)),
        format!("{{% set a = {{'k': 1}} %}}{}{{{{ a | pprint }}}}", again("{% set a = {'k': a} %}", 60)),
    ] {
        for template in [inner.clone(), format!("{}{inner}{}", ifs.0, ifs.1)] {
            let room = std::thread::Builder::new().stack_size(1 << 20);
            let thread =
                room.spawn(move || (names(&template).is_ok(), render(&template, Mode::Text, &context()).is_ok()));
            thread.unwrap().join().unwrap();
        }
    }
}

#[test]
fn quoted_words_are_not_quoted_again_in_scripts() {
    let context = json!({"x": "a b", "l": ["c d", "e"]});
    for (template, script) in [
        ("cp {{ x | quote }} y", "cp 'a b' y"),
        ("cp {{ l | map('quote') | join(' ') }} y", "cp 'c d' e y"),
        ("cp {{ l | map('ansible.builtin.quote') | list }} y", "cp 'c d' e y"),
        ("cp {{ '' | quote }} {{ none | quote }}", "cp '' ''"),
    ] {
        assert_eq!(render(template, Mode::Shell, &context).as_deref(), Ok(script), "{template}");
    }
    // Joined to others they would be half quoted.
    for template in [
        "{{ (x | quote) ~ 'y' }}",
        "{{ '--x=' + (x | quote) }}",
        "{{ l | map('quote') | join(';') }}",
        "{{ l | map('quote') | join(x) }}",
        "{{ [x | quote, x] | join(' ') }}",
        "{{ x | quote | upper }}",
        "{{ (x | quote)[1:] }}",
        "{{ '%s' | format(x | quote) }}",
        "{{ [x | quote] | to_json }}",
    ] {
        assert!(render(template, Mode::Shell, &context).is_err(), "{template}");
    }
    assert_eq!(render("{{ x | quote }}", Mode::Text, &context).as_deref(), Ok("'a b'"));
}

#[test]
fn an_unknown_name_is_found_before_anything_is_filled_in() {
    for (template, said) in [
        ("{% if false %}{{ 1 | upcase }}{% endif %}", "there is no filter upcase"),
        ("{{ 1 | tojsn }}", "tojson is there"),
        ("{{ x | uper }}", "upper is there"),
        ("{{ x is defind }}", "defined is there"),
        ("{{ x | json_query('a') }}", "map(attribute="),
        ("{{ lookup('env', 'HOME') }}", "lookup() is not to be had"),
        ("{{ now() }}", "changes by itself"),
        ("{{ x.append(1) }}", "values do not change"),
        ("{{ x.trim() }}", "write | trim"),
        ("{{ x.nope() }}", "there is no method nope"),
        ("{{ x | upper(1) }}", "takes at most 0 arguments"),
        ("{{ x | sort(atribute='a') }}", "it takes reverse, case_sensitive, attribute"),
        ("{{ x | replace('a') }}", "new is missing"),
        ("{{ x | map('nope') }}", "there is no filter nope"),
        ("{{ x | map('replace', 'a') }}", "new is missing"),
        ("{{ x | select('nope') }}", "there is no test nope"),
        ("{{ x | selectattr('a', 'nope') }}", "there is no test nope"),
        ("{{ x | regex_replace('(?=a)', 'b') }}", "look around"),
        ("{{ x is match('(a') }}", "cannot be read"),
        ("{{ [1][0]() }}", "cannot be called"),
        ("{{ x.split(',', 1, 2) }}", "takes at most 2 arguments"),
    ] {
        let message = names(template).unwrap_err();
        assert!(message.contains(said) && !message.contains('\n'), "{template}: {message}");
    }
    for template in [
        "{{ x | sort(attribute=y, **z) }}",
        "{{ x | map(y) }}",
        "{{ x.split() }}{{ x.get('a') }}",
        "{% for i in x %}{{ loop.cycle(1, 2) }}{{ loop.changed(i) }}{% endfor %}",
    ] {
        assert!(names(template).is_ok(), "{template}: {:?}", names(template));
    }
}

#[test]
fn what_is_silent_elsewhere_is_an_error() {
    let context = json!({"l": [{"a": 1}], "n": null, "t": "8"});
    for (template, said) in [
        ("{{ t > 11 }}", "cannot be compared by size"),
        ("{{ n < 1 }}", "null cannot be compared"),
        ("{{ ['9', 10] | max }}", "cannot be compared by size"),
        ("{{ t is gt 5 }}", "cannot be compared by size"),
        ("{{ l | selectattr('a', 'gt', 'x') | list }}", "cannot be compared by size"),
        ("{{ [1, 'a'] | sort }}", "cannot be compared by size"),
        ("{{ 'maybe' | bool }}", "neither true nor false"),
        ("{{ l | map(attribute='b') | join }}", "undefined"),
        ("{{ l | selectattr('b') | list }}", "has no b"),
        ("{{ l | sort(attribute='b') }}", "has no b"),
        ("{{ l | groupby('b') }}", "has no b"),
        ("{{ [l[3]] }}", "undefined"),
        ("{{ {'a': l[3]} | to_json }}", "undefined"),
        ("{{ [n] }}", "null"),
        ("{{ 'a' ~ n }}", "null"),
        ("{{ n | upper }}", "null"),
        ("{{ [n] | join }}", "null"),
        ("{% for x in n %}{% endfor %}", "null"),
    ] {
        let message = render(template, Mode::Text, &context).unwrap_err().to_string();
        assert!(message.contains(said), "{template}: {message}");
    }
}
