//! Templates that try to take more of the operator than their share: each is refused, soon and within a few MiB.

use std::time::Duration;

use pallet_core::phase::render::{Mode, names, render};
use serde_json::{Value as Json, json};

/// What no template may take beside what was there before, in bytes, and how long in a build that is not optimised.
const MEMORY: usize = 48 << 20;
const TIME: Duration = Duration::from_secs(3);

fn context() -> Json {
    let long: Vec<String> = (0..500).map(|n| format!("{n:040}")).collect();
    json!({
        "facts": {"long": long, "text": "x".repeat(4096), "name": "web", "deep": {"a": {"b": [1, 2, 3]}}},
        "node": {"name": "web-1", "ordinal": 1},
        "settings": {"port": 8080},
    })
}

/// Said of what may be filled in, as long as that takes no more than its share.
const HARMLESS: &str = "harmless";

/// Templates that try to take more than their share, each with a word of its refusal.
fn attacks() -> Vec<(&'static str, String, &'static str)> {
    let again = |text: &str, times: usize| text.repeat(times);
    const TOO_MUCH: &str = "more than 16 MiB";
    vec![
        ("~ doubles", format!("{{% set a = 'xxxx' %}}{}", again("{% set a = a ~ a %}", 40)), TOO_MUCH),
        ("~ doubles within one tag", format!("{{% set a = facts.text %}}{}", again("{% set a = a ~ a ~ a ~ a %}", 20)), TOO_MUCH),
        ("~ writes lists", "{% set a = [1] %}".to_owned() + &again("{% set a = a ~ [a, a] %}", 30), TOO_MUCH),
        ("+ doubles a text", format!("{{% set a = 'xxxx' %}}{}", again("{% set a = a + a %}", 40)), TOO_MUCH),
        ("+ doubles a list", format!("{{% set a = [1] %}}{}{{{{ a | length }}}}", again("{% set a = a + a %}", 40)), TOO_MUCH),
        ("a list of itself twice", format!("{{% set a = [1] %}}{}{{{{ a }}}}", again("{% set a = [a, a] %}", 40)), TOO_MUCH),
        ("an object of itself twice", format!("{{% set a = {{'k': 1}} %}}{}{{{{ a }}}}", again("{% set a = {'x': a, 'y': a} %}", 40)), TOO_MUCH),
        ("a tuple of itself twice", format!("{{% set a = (1,) %}}{}{{{{ a }}}}", again("{% set a = (a, a) %}", 40)), TOO_MUCH),
        ("a tuple added to itself", format!("{{% set a = (1,) %}}{}", again("{% set a = a + a %}", 40)), TOO_MUCH),
        ("dict() of itself twice", format!("{{% set a = {{'k': 1}} %}}{}{{{{ a }}}}", again("{% set a = dict(x=a, y=a) %}", 40)), TOO_MUCH),
        ("two lists of themselves are compared", format!("{{% set a = [1] %}}{{% set b = [1] %}}{}{{{{ a == b }}}}", again("{% set a = [a, a] %}{% set b = [b, b] %}", 40)), TOO_MUCH),
        ("zip of itself", format!("{{% set a = [1] %}}{}{{{{ a }}}}", again("{% set a = a | zip(a) %}", 40)), TOO_MUCH),
        ("set blocks double", format!("{{% set a %}}xxxx{{% endset %}}{}", again("{% set a %}{{ a }}{{ a }}{% endset %}", 40)), TOO_MUCH),
        ("set blocks in each other", format!("{}xxxxxxxx{}", again("{% for i in range(9) %}{% set a %}", 12), again("{% endset %}{{ a }}{% endfor %}", 12)), "steps"),
        ("set blocks of long texts in each other", format!("{}{{{{ facts.text }}}}{}", again("{% for i in range(9) %}{% set a %}", 6), again("{% endset %}{{ a }}{% endfor %}", 6)), TOO_MUCH),
        ("filter blocks", format!("{{% set a = facts.text %}}{}", again("{% set a %}{% filter upper %}{{ a }}{{ a }}{% endfilter %}{% endset %}", 30)), TOO_MUCH),
        ("with doubles", format!("{{% with a = 'xxxx' %}}{}{}{{% endwith %}}", again("{% with a = a ~ a %}", 40), again("{% endwith %}", 40)), TOO_MUCH),
        ("replace with itself", format!("{{% set a = 'xx' %}}{}", again("{% set a = a | replace('x', a) %}", 10)), TOO_MUCH),
        ("replace of nothing", format!("{{% set a = facts.text %}}{}", again("{% set a = a | replace('', a) %}", 10)), TOO_MUCH),
        ("join with itself", format!("{{% set a = facts.text %}}{}", again("{% set a = facts.long | join(a) %}", 5)), TOO_MUCH),
        ("join by name", "{{ range(5000) | join(d=facts.text) }}".into(), TOO_MUCH),
        ("a wide indent", "{{ facts.text | replace('x', '\\n') | indent(100000000) }}".into(), TOO_MUCH),
        ("a wide indent by name", "{{ 'a\\nb' | indent(width=9000000000) }}".into(), TOO_MUCH),
        ("a wide place", "{{ '%900000000d' | format(1) }}".into(), TOO_MUCH),
        ("a wide place by a star", "{{ '%*d' | format(900000000, 1) }}".into(), TOO_MUCH),
        ("a precise place", "{{ '%.900000000f' | format(1.5) }}".into(), TOO_MUCH),
        ("many places for one text", format!("{{{{ '{}' | format(t=facts.text) }}}}", again("%(t)s", 9000)), TOO_MUCH),
        ("JSON with a wide indent", "{{ facts | tojson(indent=100000000) }}".into(), TOO_MUCH),
        ("batch with a filler", "{{ [1] | batch(1000000000, 'x') }}".into(), TOO_MUCH),
        ("slices without end", "{{ [1] | slice(1000000000) }}".into(), TOO_MUCH),
        ("sum of texts", "{{ facts.long | sum(start='') }}".into(), "adds numbers up"),
        ("sum of texts by place", "{{ facts.long | sum(none, '') }}".into(), ""),
        ("map calls what makes much", "{{ range(9000) | map('replace', '1', facts.text) | list }}".into(), TOO_MUCH),
        ("select looks again and again", "{{ range(90000) | select('in', facts.long) | list }}".into(), TOO_MUCH),
        ("a text many times", "{{ 'x' * 99000000 }}".into(), "64 KiB"),
        ("a text many times by a name", "{{ facts.name * 99000000 }}".into(), TOO_MUCH),
        ("a number times a text", "{{ (99000000 + node.ordinal) * facts.name }}".into(), TOO_MUCH),
        ("a list many times", "{{ (facts.long * 99000000) | length }}".into(), TOO_MUCH),
        ("a constant list many times", "{{ ([1] * 99000000) | length }}".into(), ""),
        ("constants that multiply", "{{ 'x' * 1000 * 1000 * 1000 }}".into(), "64 KiB"),
        ("constants that are added up", format!("{{% set a = {}'x' %}}", again("('x' * 60000) ~ ", 100)), "64 KiB"),
        ("a long text in a loop", format!("{{% for i in range(20000) %}}{}{{% endfor %}}", again("x", 60_000)), TOO_MUCH),
        ("a long text in a loop in a block", format!("{{% set a %}}{{% for i in range(20000) %}}{}{{% endfor %}}{{% endset %}}", again("x", 60_000)), TOO_MUCH),
        ("a fact in a loop", "{% for i in range(20000) %}{{ facts.text }}{% endfor %}".into(), TOO_MUCH),
        ("a list in a loop", "{% for i in range(20000) %}{{ facts.long }}{% endfor %}".into(), TOO_MUCH),
        ("long numbers that are joined", "{{ ([1e300] * (100000 + node.ordinal)) | join }}".into(), TOO_MUCH),
        ("long numbers in a loop", format!("{{% for i in range(9000) %}}{}{{% endfor %}}", again("{{ 1e300 }}", 90)), TOO_MUCH),
        ("numbers rounded at length", "{{ range(90000) | map('float') | map('round', 1074) | list }}".into(), TOO_MUCH),
        ("numbers rounded at length the other way", "{{ range(9000) | map('float') | map('round', -300) | list }}".into(), TOO_MUCH),
        ("a text backwards", "{% set a = 'x' * (4000000 + node.ordinal) %}{{ a[::-1] }}{{ a[::-1] }}{{ a[::-1] }}".into(), TOO_MUCH),
        ("a text in parts", "{% set a = 'x' * (4000000 + node.ordinal) %}{{ a | split('') }}".into(), TOO_MUCH),
        ("a text in lines", "{% set a = '\\n' * (4000000 + node.ordinal) %}{{ a | lines }}".into(), TOO_MUCH),
        ("a long text trimmed of much", "{% set a = facts.text * 20 %}{{ a | trim(a) }}".into(), TOO_MUCH),
        ("characters of a long text", "{% set a = 'x' * (4000000 + node.ordinal) %}{{ a | list | length }}".into(), TOO_MUCH),
        ("a long list and another", "{{ (range(99999) + facts.long) ~ 'x' }}".into(), TOO_MUCH),
        ("slices of nothing without end", "{% for i in range(9999) %}{{ (facts.text * 100)[::-1][9:1] }}{% endfor %}".into(), TOO_MUCH),
        ("more than a mebibyte", "{% for i in range(300) %}{{ facts.text }}{% endfor %}".into(), "more than 1 MiB"),
        ("a character of a long text", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{% if a[i] == 'y' %}{% endif %}{% endfor %}".into(), TOO_MUCH),
        ("a loop over a long text", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{% for c in a[:1] %}{% endfor %}{% endfor %}".into(), TOO_MUCH),
        ("a loop over characters begun often", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{% for c in a if false %}{% endfor %}{% endfor %}".into(), "steps"),
        ("what is looked for in a long text", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{{ 'y' in a }}{% endfor %}".into(), TOO_MUCH),
        ("a list that is looked for in a text", "{% set a = range(30000) | list %}{% for i in range(9999) %}{{ a in 'x' }}{% endfor %}".into(), "text holds text only"),
        ("texts compared again and again", "{% set a = facts.text * 200 %}{% set b = facts.text * 200 %}{% for i in range(9999) %}{{ a == b }}{% endfor %}".into(), TOO_MUCH),
        ("texts compared in a chain", "{% set a = facts.text * 200 %}{% set b = facts.text * 200 %}{% for i in range(9999) %}{{ a <= b <= a }}{% endfor %}".into(), TOO_MUCH),
        ("a test compares", "{% set a = facts.text * 200 %}{% set b = facts.text * 200 %}{% for i in range(9999) %}{{ a is eq(b) }}{% endfor %}".into(), TOO_MUCH),
        ("a loop compares", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{{ loop.changed(a) }}{% endfor %}".into(), TOO_MUCH),
        ("a long key", "{% set a = [facts.text * 200] %}{% set m = {a: 1} %}{% for i in range(9999) %}{{ m[a] }}{% endfor %}".into(), TOO_MUCH),
        ("slices of slices", format!("{{% set a = range(90000) %}}{}{{{{ a | length }}}}", again("{% set a = a[0:] %}", 500)), TOO_MUCH),
        ("sorted again and again", format!("{{% set a = range(90000) | list %}}{}", again("{% set a = a | sort | reverse %}", 500)), TOO_MUCH),
        (
            "many keys to sort by",
            format!("{{{{ range(240) | sort(attribute='{}') | length }}}}", again("a,", 30_000)),
            TOO_MUCH,
        ),
        ("a list as text", "{{ ['\x01' * 4000000] | upper }}".into(), ""),
        (
            "a list of control characters as text",
            "{% set a = '\x01' * (2000000 + node.ordinal) %}{{ [a] | upper }}".into(),
            TOO_MUCH,
        ),
        (
            "a number in which a long text is put",
            "{% set a = facts.text * 900 %}{{ 1111111111111111111 | replace(1, a) }}".into(),
            TOO_MUCH,
        ),
        ("groups of groups", format!("{{% set a = [{{'k': 1}}] %}}{}{{{{ a }}}}", again("{% set a = (a + a) | groupby('k') | map('list') | list %}", 40)), ""),
        ("groups of a long list", "{% set l = [{'x': 1}] * 2000 %}{% for i in range(999) %}{% set a = l | groupby('x') | list %}{% endfor %}".into(), TOO_MUCH),
        ("product of itself", "{{ range(900) | product(range(900)) | list | length }}".into(), TOO_MUCH),
        ("product of a product", format!("{{% set a = [1, 2] %}}{}", again("{% set a = a | product(a) %}", 9)), TOO_MUCH),
        ("product repeated", "{{ range(99) | product(repeat=16) | list | length }}".into(), TOO_MUCH),
        ("zip_longest fills with a long text", "{{ range(90000) | zip_longest([1], fillvalue=facts.text) | list | length }}".into(), TOO_MUCH),
        ("flatten what was doubled", format!("{{% set a = [1] %}}{}{{{{ a | flatten }}}}", again("{% set a = [a, a] %}", 40)), TOO_MUCH),
        ("sum of lists", format!("{{% set a = [[1]] %}}{}", again("{% set a = [a | sum(start=[]) + a] %}{% set a = a + a %}", 40)), HARMLESS),
        ("combine again and again", format!("{{% set a = {{'k': facts.long}} %}}{}", again("{% set a = a | combine(a, list_merge='append') %}", 40)), TOO_MUCH),
        ("combine without what comes twice", "{% set a = range(9000) | list %}{{ {'k': a} | combine({'k': a}, list_merge='append_rp') | length }}".into(), TOO_MUCH),
        ("items with a long name", "{{ dict(range(9000) | zip(range(9000))) | dict2items(key_name=facts.text) | length }}".into(), TOO_MUCH),
        ("subelements of a long element", "{% set a = {'t': facts.text, 'l': range(9000) | list} %}{{ [a] | subelements('l') | length }}".into(), TOO_MUCH),
        ("JSON of JSON", format!("{{% set a = facts.text %}}{}", again("{% set a = a | to_json %}", 40)), HARMLESS),
        ("JSON with a wide indent by name", "{{ facts | to_nice_json(indent=100000000) }}".into(), TOO_MUCH),
        ("JSON with a long separator", "{{ range(9000) | list | to_json(separators=(facts.text, facts.text)) }}".into(), TOO_MUCH),
        ("JSON that is deep", format!("{{{{ ('{}' | from_json) }}}}", again("[", 60_000)), "too deep"),
        ("JSON with much in it", "{% set a = '[' ~ '1,' * (600000 + node.ordinal) ~ '1]' %}{{ a | from_json | length }}".into(), TOO_MUCH),
        ("YAML of YAML", format!("{{% set a = facts.text %}}{}", again("{% set a = [a] | to_yaml %}", 60)), HARMLESS),
        ("YAML with a wide indent", format!("{{% set a = [1] %}}{}{{{{ a | to_nice_yaml(indent=9) }}}}", again("{% set a = [a] %}", 60)), HARMLESS),
        ("YAML that is deep", format!("{{{{ ('{}' | from_yaml) }}}}", again("[", 60_000)), "no YAML"),
        ("YAML that names itself over and over", format!("{{{{ \"a: &a [x,x,x,x,x,x,x,x,x]\\n{}\" | from_yaml | length }}}}", ('b'..='k').zip('a'..='j').map(|(this, last)| format!("{this}: &{this} [{}]\\n", vec![format!("*{last}"); 9].join(","))).collect::<String>()), TOO_MUCH),
        ("YAML with many keys to merge", format!("{{{{ \"a: &a {{{{x: {}}}}}\\n{}\" | from_yaml | length }}}}", "y".repeat(60_000), again("- <<: *a\\n", 9)), HARMLESS),
        ("base64 of base64", format!("{{% set a = facts.text * 100 %}}{}", again("{% set a = a | b64encode %}", 40)), TOO_MUCH),
        ("hashes again and again", "{% set a = facts.text * 200 %}{% for i in range(9999) %}{{ a | hash('sha512') }}{% endfor %}".into(), TOO_MUCH),
        ("a password hashed for long", "{{ 'x' | password_hash('sha512', 'salt', rounds=999999999) }}".into(), TOO_MUCH),
        ("passwords hashed", "{% for i in range(900) %}{{ 'x' | password_hash('sha512', 'salt', rounds=5000) }}{% endfor %}".into(), TOO_MUCH),
        ("a long password", "{{ facts.text * 9 | password_hash('sha512', 'salt', rounds=5000) }}".into(), ""),
        ("seeds", "{% for i in range(9999) %}{{ 9 | random(seed=i) }}{% endfor %}".into(), TOO_MUCH),
        ("a long seed", "{% set a = facts.text * 900 %}{% for i in range(9) %}{{ 9 | random(seed=a) }}{% endfor %}".into(), TOO_MUCH),
        ("a pattern that repeats a repetition", "{{ facts.text | regex_search('(x{900}){900}') }}".into(), "too large"),
        ("a pattern that is large", "{{ facts.text | regex_search('(?:\\w{90}){9}y') }}".into(), HARMLESS),
        ("a pattern that looks far", "{{ facts.text * 9 | regex_replace('x(?:[^z]*z)?', 'y') }}".into(), ""),
        ("a pattern that looks far each time", "{% set a = facts.text * 9 %}{{ a | regex_replace('x(?:[^z]*z)?', 'y') }}".into(), TOO_MUCH),
        ("a pattern that finds much", "{% set a = facts.text * 90 %}{{ a | regex_findall('x') | length }}".into(), TOO_MUCH),
        ("a pattern with many groups", format!("{{{{ facts.text | regex_findall('{}') | length }}}}", again("(x)", 300)), HARMLESS),
        ("a replacement that is long", "{% set a = facts.text * 9 %}{{ facts.text | regex_replace('x', a) }}".into(), TOO_MUCH),
        ("a pattern for each", "{{ range(9000) | map('string') | map('regex_replace', '\\d+\\w+\\s*', 'x') | list | length }}".into(), HARMLESS),
        ("patterns of facts", "{% for i in range(9000) %}{{ 'x' is match('(a|b|' ~ i ~ ')*\\w{3}') }}{% endfor %}".into(), TOO_MUCH),
        ("a comment with many lines", "{% set a = '\\n' * (60000 + node.ordinal) %}{{ a | comment(decoration=facts.text) }}".into(), TOO_MUCH),
        ("a comment with a long end", "{{ 'a' | comment(postfix=facts.text * 9, postfix_count=1000) }}".into(), TOO_MUCH),
        ("a wide place in braces", "{{ '{:>900000000}'.format(1) }}".into(), ""),
        ("many places in braces for one text", format!("{{{{ '{}'.format(facts.text) }}}}", again("{0}", 9000)), TOO_MUCH),
        ("a wide place by %", "{{ '%900000000d' % 1 }}".into(), TOO_MUCH),
        ("a text doubled by %", format!("{{% set a = facts.text %}}{}", again("{% set a = '%s%s%s' % (a, a, a) %}", 20)), TOO_MUCH),
        ("center by a method", "{{ 'x'.center(900000000) }}".into(), TOO_MUCH),
        ("zeros by a method", "{{ 'x'.zfill(900000000) }}".into(), TOO_MUCH),
        ("a text replaced by a method", format!("{{% set a = 'xx' %}}{}", again("{% set a = a.replace('x', a) %}", 10)), TOO_MUCH),
        ("a text split by a method", "{% set a = 'x,' * (2000000 + node.ordinal) %}{{ a.split(',') | length }}".into(), TOO_MUCH),
        ("words wrapped with much between", "{% set a = 'x ' * (9000 + node.ordinal) %}{{ a | wordwrap(1, wrapstring=facts.text) }}".into(), TOO_MUCH),
        ("ranges by method", "{% for i in range(9999) %}{{ range(99999).count(5) }}{% endfor %}".into(), TOO_MUCH),
        ("versions that are long", "{% set a = '1.' * (60000 + node.ordinal) %}{% for i in range(9999) %}{{ a is version(a, '<') }}{% endfor %}".into(), TOO_MUCH),
        ("addresses over and over", "{{ (['10.0.0.1/8'] * (90000 + node.ordinal)) | ipaddr('network') | length }}".into(), HARMLESS),
        ("chained comparisons in each other", format!("{{{{ {}1{} }}}}", again("1 < (1 < ", 70), again(" < 2) < 2", 70)), HARMLESS),
        ("many ranges", again("{% set a = range(99999) | list %}", 100), TOO_MUCH),
        ("namespaces hold themselves", "{% set n = namespace() %}{% set n.n = n %}{{ n }}".into(), "namespace() is not to be had"),
        ("a namespace by another name", "{% set f = namespace %}{% set n = f() %}".into(), ""),
        ("loops that call themselves", "{% for a in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}".into(), "recursive"),
        ("lists in lists", format!("{{% set a = [1] %}}{}", again("{% set a = [a] %}", 5000)), "64 deep"),
        ("everything there is", "{{ debug() }}".into(), "debug() is not to be had"),
        ("loops in loops", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}".into(), "100000 steps"),
        ("minus signs", format!("{{{{ {}1 }}}}", again("-", 100_000)), "300 operators"),
        ("nots", format!("{{{{ {}true }}}}", again("not ", 60_000)), "300 operators"),
        ("pluses", format!("{{{{ 1{} }}}}", again("+1", 60_000)), "300 operators"),
        ("dots", format!("{{{{ facts{} }}}}", again(".a", 60_000)), "300 operators"),
        ("subscripts", format!("{{{{ facts{} }}}}", again("[0]", 60_000)), "300 operators"),
        ("filters", format!("{{{{ 1{} }}}}", again("|abs", 60_000)), "300 operators"),
        ("conditions", format!("{{{{ {}1 }}}}", again("1 if 0 else ", 20_000)), "300 operators"),
        ("brackets", format!("{{{{ {}1{} }}}}", again("[", 60_000), again("]", 60_000)), "300 operators"),
        ("braces", format!("{{{{ {}1{} }}}}", again("{1:", 60_000), again("}", 60_000)), ""),
        ("parentheses to set", format!("{{% set {}a{} = 1 %}}", again("(", 60_000), again(")", 60_000)), "300 operators"),
        ("calls", format!("{{{{ range{} }}}}", again("()", 60_000)), "300 operators"),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", again("{% elif 0 %}", 15_000)), "300 elif"),
        ("ifs in ifs", again("{% if 1 %}", 20_000), "recursion"),
        ("more text than allowed", format!("{{{{ 1 }}}}{}", again("x", 300_000)), "256 KiB"),
    ]
}

/// Peak and present memory of this process.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
    };
    (field("VmHWM:"), field("VmRSS:"))
}

/// The processor time of this process so far, which does not count what else the machine has to do.
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_the_name = stat.rsplit(')').next().unwrap();
    let ticks = after_the_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    // A hundred a second, on every Linux there is.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Runs by itself in a process of its own, whose memory is counted: see the test below.
#[test]
#[ignore = "run by the test below"]
fn attacked() {
    let context = context();
    for (name, template, said) in attacks() {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (before, start) = (memory().1, worked());
        let outcome = render(&template, Mode::Text, &context);
        let (took, more) = (worked() - start, memory().0.saturating_sub(before));
        println!("{name}: {took:?}, {} KiB, {:?}", more >> 10, outcome.as_ref().map(String::len));
        assert!(more < MEMORY, "{name}: took {more} bytes");
        assert!(took < TIME, "{name}: took {took:?}");
        if said == HARMLESS {
            continue;
        }
        let message = outcome.err().unwrap_or_else(|| panic!("{name}: was filled in"));
        assert!(message.to_string().contains(said), "{name}: {message}");
        assert!(message.to_string().len() < 1000, "{name}: {message}");
        let _ = names(&template);
        assert!(
            worked() - start < TIME + TIME && memory().0.saturating_sub(before) < MEMORY,
            "{name}: reading its names"
        );
    }
}

/// Found by review: forty doublings took all memory there was, and with it the operator of everybody's groups; and a line
/// of minus signs filled the stack.
#[test]
fn no_template_takes_more_than_its_share() {
    // A process of its own: what others take at the same time does not count, and what a bound fails to stop ends by itself.
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 2000000; exec \"$0\" --ignored --exact attacked --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}
