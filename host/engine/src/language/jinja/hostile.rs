//! Templates that use too much end in an error, in bounded memory and on a small stack.

use std::process::Command;

use super::{Bounds, Cause, Error, Program};

/// The limits of a short chat.
const BOUNDS: Bounds = Bounds { steps: 50_000, bytes: 8 << 20, output: 4 << 20 };

/// The time of `strftime_now`.
const NOW: i64 = 0;

/// Smaller than the stack of a runtime thread.
const STACK_BYTES: usize = 768 << 10;

/// Environment variable that is set in the process that runs the test alone.
const ALONE: &str = "INFER_TEST_ALONE";

fn outcome(source: &str) -> Result<String, Error> {
    Program::parse(source)?.render(Vec::new(), NOW, &BOUNDS)
}

/// Nested lists that double in size `times` times.
fn doubled(times: usize, and_then: &str) -> String {
    format!(
        "{{% set ns = namespace(x=[1], y=[1]) %}}{{% for i in range({times}) %}}{{% set ns.x = [ns.x, ns.x] %}}\
         {{% set ns.y = [ns.y, ns.y] %}}{{% endfor %}}{and_then}"
    )
}

/// Templates that exceed their budget, and the operation that does.
fn unbounded() -> Vec<(String, Option<&'static str>)> {
    let mut cases: Vec<(String, Option<&'static str>)> = [
        ("{% set a = {'a': [1, 2, 3]}|tojson(indent=99999999999) %}", Some("filter `tojson`")),
        ("{{ [[[1]]]|tojson(indent=9223372036854775807) }}", Some("filter `tojson`")),
        ("{{ range(9000)|list|tojson(separators=('x' * 9999, 'y')) }}", Some("filter `tojson`")),
        ("{{ ('\\x01' * 1500000)|tojson }}", Some("filter `tojson`")),
        ("{{ ('é' * 900000)|tojson(ensure_ascii=true) }}", Some("filter `tojson`")),
        ("{{ 'a\nb'|indent(9999999999) }}", Some("filter `indent`")),
        ("{{ ('a\n' * 10000)|indent('x' * 10000) }}", Some("filter `indent`")),
        ("{{ 'x' * 9999999999 }}", None),
        ("{{ 9223372036854775807 * 'x' }}", None),
        ("{{ [1] * 9999999999 }}", None),
        ("{{ (1, 2) * 9999999999 }}", None),
        ("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", None),
        ("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", None),
        ("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", None),
        ("{% for i in range(999999999999) %}{% endfor %}", Some("function `range`")),
        ("{{ range(-9223372036854775807, 9223372036854775807) }}", Some("function `range`")),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", None),
        ("{{ range(10000)|join('x' * 100000) }}", Some("filter `join`")),
        ("{{ ('x' * 100000).join(['a'] * 10000) }}", Some("method `join`")),
        ("{{ ('x' * 100000)|replace('', 'y' * 1000) }}", Some("filter `replace`")),
        ("{{ ('x' * 100000).replace('x', 'y' * 1000) }}", Some("method `replace`")),
        ("{{ ('a,' * 1000000).split(',') }}", Some("method `split`")),
        ("{{ ('a ' * 1000000).split(none, 999999) }}", Some("method `split`")),
        ("{{ ('\n' * 1000000).splitlines() }}", Some("method `splitlines`")),
        ("{{ ('a' * 1000000)|list }}", Some("filter `list`")),
        ("{{ ('ΐ' * 900000)|upper }}", Some("filter `upper`")),
        ("{{ ('y' * 1000000).strip('y' * 1000000) }}", Some("method `strip`")),
        ("{{ (['x' * 10000] * 10000)|map('upper')|list }}", Some("filter `map`")),
        ("{{ (['x' * 10000] * 1000)|map('tojson')|list }}", Some("filter `map`")),
        ("{{ ([[1] * 1000] * 1000)|sum(start=[]) }}", Some("filter `sum`")),
        ("{{ range(10000)|unique|list }}", Some("filter `unique`")),
        ("{{ (range(20000)|list)|sort }}", Some("filter `sort`")),
        ("{{ ('{0}' * 9999).format('x' * 99999) }}", Some("method `format`")),
        ("{{ strftime_now('%Y' * 900000) }}", Some("function `strftime_now`")),
        ("{% set x %}{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}{% endset %}", None),
        ("{% for i in range(9999) %}{{ 'x' * 999 }}{% endfor %}", None),
        ("{% set a = 'x' * 1000000 %}{% for i in range(9999) %}{{ 'y' in a }}{% endfor %}", None),
        ("{% set a = 'x' * 900000 %}{% set b = 'x' * 900000 %}{% for i in range(9999) %}{{ a == b }}{% endfor %}", None),
        ("{% set a = 'é' * 100000 %}{% for i in range(9999) %}{% set b = a[99999] ~ a[::-1] %}{% endfor %}", None),
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(18) }}", None),
    ]
    .map(|(source, place)| (source.to_owned(), place))
    .into();
    cases.extend([
        (doubled(28, "{{ ns.x }}"), None),
        (doubled(28, "{{ ns.x ~ '' }}"), None),
        (doubled(28, "{{ ns.x|tojson }}"), Some("filter `tojson`")),
        (doubled(28, "{{ ns.x|string }}"), Some("filter `string`")),
        (doubled(28, "{{ ns.x == ns.y }}"), None),
        (doubled(28, "{{ ns.x in [ns.y] }}"), None),
        (doubled(28, "{{ ns.x < ns.y }}"), None),
        (doubled(28, "{{ [ns.x, ns.y]|sort }}"), Some("filter `sort`")),
        (doubled(28, "{{ [ns.x, ns.y]|unique }}"), Some("filter `unique`")),
        (doubled(28, "{{ [ns.x]|join }}"), Some("filter `join`")),
        (format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "y".repeat(50_000)), None),
        (
            (0..10_000).map(|at| format!("{{% set v{at} = 1 %}}")).collect::<String>()
                + "{% for i in range(9999) %}{{ v0 }}{% endfor %}",
            None,
        ),
        (
            format!(
                "{{% set d = {{ {} }} %}}",
                (0..5_000).map(|at| format!("{at}: 1, ")).collect::<String>()
            ),
            None,
        ),
    ]);
    cases
}

/// Templates that are invalid or nested too deeply, and a part of the error message.
fn failing() -> Vec<(String, &'static str)> {
    let mut cases: Vec<(String, &'static str)> = [
        ("{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}", "32 deep"),
        ("{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}", "32 deep"),
        ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "a namespace cannot be part"),
        ("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "a namespace cannot be part"),
        ("{% set ns = namespace() %}{% set ns = namespace(x=ns) %}", "a namespace cannot be part"),
        ("{% for i in [1] %}{% set x = [loop] %}{% endfor %}", "a loop cannot be part"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "300 deep"),
        ("{% macro f(a=f()) %}{% endmacro %}{{ f() }}", "300 deep"),
        ("{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}", "300 deep"),
        ("{{ 10 ** 10 ** 10 }}", "64 bits"),
        ("{{ 9223372036854775807 + 1 }}", "64 bits"),
        ("{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"),
        ("{{ (-9223372036854775807 - 1) % -1 }}", "64 bits"),
        ("{{ -(-9223372036854775807 - 1) }}", "`-`"),
        ("{{ (-9223372036854775807 - 1)|abs }}", "filter `abs`"),
        ("{{ 99999999999999999999 }}", "64 bits"),
        ("{{ range(1, 2, 0) }}", "function `range`"),
        ("{{ 'abc'[::0] }}", "step of 0"),
        ("{{ 'x'|center(9999999999) }}", "filter `center`"),
        ("{{ [1]|batch(9999999999, 'x') }}", "filter `batch`"),
        ("{{ [1]|slice(9999999999) }}", "filter `slice`"),
        ("{{ '%9999999999d'|format(1) }}", "filter `format`"),
        ("{{ '%9999999999d' % 1 }}", "`%`"),
        ("{{ '{:>9999999999}'.format(1) }}", "method `format`"),
        ("{{ 'x'.center(9999999999) }}", "method `center`"),
        ("{{ 'x'.zfill(9999999999) }}", "method `zfill`"),
        ("{{ '\t'.expandtabs(9999999999) }}", "method `expandtabs`"),
        ("{{ 1|pprint }}", "filter `pprint`"),
        ("{{ 1|urlencode }}", "filter `urlencode`"),
        ("{{ [1]|groupby('a') }}", "filter `groupby`"),
        ("{{ [[1]]|map('map', 'map')|list }}", "filter `map`"),
        ("{{ 1 is filter }}", "test `filter`"),
        ("{{ debug() }}", "function `debug`"),
        ("{{ lipsum() }}", "function `lipsum`"),
        ("{{ ''.__class__.__mro__ }}", "`__class__` is undefined"),
        ("{% include 'x' %}", "tag `include`"),
        ("{% extends 'x' %}", "tag `extends`"),
        ("{% import 'x' as y %}", "tag `import`"),
        ("{% block x %}{% endblock %}", "tag `block`"),
        ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
        ("{{ f(*[1]) }}", "`*`"),
        ("{{ 'a", "quote"),
        ("{{ '\\u12' }}", "hexadecimal"),
        ("{% raw %}", "endraw"),
        ("{#", "comment"),
        ("{{ 1", "not closed"),
    ]
    .map(|(source, words)| (source.to_owned(), words))
    .into();
    let many = |before: &str, part: &str, after: &str| format!("{before}{}{after}", part.repeat(80_000));
    for (before, part, after, words) in [
        ("{{ ", "(", "1", "not closed"),
        ("{{ ", "[", "", "not closed"),
        ("{{ ", "not ", "1 }}", "100 deep"),
        ("{{ ", "-", "1 }}", "100 deep"),
        ("{{ ", "1 if 0 else ", "2 }}", "100 deep"),
        ("{% if 1 %}", "{% if 1 %}", "", "100 deep"),
        ("{{ {}", ".a", " }}", "undefined"),
        ("{{ [1]", "[0]", " }}", "undefined"),
        ("{{ f", "()", " }}", "function `f`"),
    ] {
        cases.push((many(before, part, after), words));
    }
    cases.push((format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)), "100 deep"));
    cases.push(("x".repeat((1 << 20) + 1), "bytes"));
    cases
}

/// Templates that are long but not deeply nested.
fn long() -> Vec<(String, &'static str)> {
    let many = |before: &str, part: &str, after: &str| format!("{before}{}{after}", part.repeat(10_000));
    vec![
        (many("{{ 0", "+1", " }}"), "10000"),
        (many("{{ 1", "**1", " }}"), "1"),
        (many("{{ 1", "|abs", " }}"), "1"),
        (many("{{ 1", " and 1", " }}"), "1"),
        (many("{{ 1", " <= 1", " }}"), "True"),
        (many("{% if 0 %}", "{% elif 0 %}", "{% else %}x{% endif %}"), "x"),
        (format!("{}x{}", "{% for i in [1] %}".repeat(90), "{% endfor %}".repeat(90)), "x"),
        ("{{ []*9999999999 }}{{ ''*9999999999 }}{{ 'x' * -9 }}".to_owned(), "[]"),
        ("{{ [1, 2][::9223372036854775807] }}{{ [1][-9223372036854775807:] }}".to_owned(), "[1][1]"),
        ("{{ 1.5|round(99999999999) }} {{ 1e308 * 10 }}".to_owned(), "1.5 inf"),
    ]
}

fn run() {
    for (source, place) in unbounded() {
        let shown: String = source.chars().take(200).collect();
        let error = outcome(&source).expect_err(&shown);
        assert_eq!(error.cause, Cause::Unbounded(place.map(str::to_owned)), "{shown}");
    }
    for (source, words) in failing() {
        let shown: String = source.chars().take(200).collect();
        let Cause::Failed(message) = outcome(&source).expect_err(&shown).cause else { panic!("{shown}") };
        assert!(message.contains(words), "{shown}: no `{words}` in {message}");
        assert!(message.len() < 600, "{shown}: {} bytes of an error", message.len());
    }
    for (source, expected) in long() {
        let shown: String = source.chars().take(200).collect();
        assert_eq!(outcome(&source).expect(&shown), expected, "{shown}");
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs in its own process, so that the peak memory is that of the templates.
#[test]
fn hostile_templates_end_in_bounded_memory() {
    if std::env::var_os(ALONE).is_some() {
        let before = peak_kib();
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap();
        let grown = peak_kib() - before;
        assert!(grown < 100 << 10, "{grown} KiB");
        return;
    }
    let name = "language::jinja::hostile::hostile_templates_end_in_bounded_memory";
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let written = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}", output.status, &written[..written.len().min(4_000)]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{written}");
}

#[test]
fn broken_templates_do_not_panic() {
    let source = "{% set x = {'a': [1, 2.5e3, (3,)]} -%}{{- x.a[0:1]|join(', ') ~ \"é\\u00e9\" if x is defined else f(a=1) }}{# c #}{% raw %}{{{% endraw %}";
    for (at, _) in source.char_indices() {
        let _ = outcome(&source[..at]);
        let _ = outcome(&source[at..]);
        for character in ['{', '}', '%', '\'', '(', '|', '-', '#', 'é', '\0', ' '] {
            let mut broken = source.to_owned();
            broken.replace_range(
                at..at + source[at..].chars().next().map_or(0, char::len_utf8),
                &character.to_string(),
            );
            let _ = outcome(&broken);
        }
    }
}

#[test]
fn sorting_nan_keeps_every_item() {
    let items = "([[('nan'|float)], [1], [2], [0], [5], [3], [('nan'|float)], [4]] * 8)";
    for filter in ["sort", "sort(reverse=true)", "sort(attribute=0)"] {
        let source = format!("{{{{ {items}|{filter}|length }}}}");
        assert_eq!(outcome(&source).unwrap(), "64", "{filter}");
    }
}
