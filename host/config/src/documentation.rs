//! The lists of keys in docs/CONFIGURATION.md, as the table of keys writes them.
//!
//! A list is between the lines `<!-- keys: server.listen to aliases -->` and
//! `<!-- end of keys -->`; `<!-- keys: server.tls -->` opens the list of a whole section.

use std::path::PathBuf;

use crate::key::{DefaultValue, Key, Kind, RangeText, Reload};
use crate::table::SECTIONS;

/// Maximum columns of a line.
const COLUMNS: usize = 100;

const START: &str = "<!-- keys: ";
const END: &str = "<!-- end of keys -->";

/// Rewrites the lists of keys in `page`. Returns it with the paths of the documented keys.
fn rewrite(page: &str) -> (String, Vec<String>) {
    let (mut written, mut documented) = (String::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        let Some(marker) = line.strip_prefix(START).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        for (section, key) in selected(marker) {
            written.push_str(&item(key));
            documented.push(format!("{section}.{}", key.name));
        }
        let end = lines.find(|line| *line == END);
        written.push_str(end.unwrap_or_else(|| panic!("`{line}` has no `{END}`")));
        written.push('\n');
    }
    (written, documented)
}

/// Returns the keys of a marker: `SECTION.FIRST to LAST`, or a whole `SECTION`.
fn selected(marker: &str) -> Vec<(&'static str, &'static Key)> {
    let (section, names) = match marker.split_once(" to ") {
        Some((start, last)) => {
            let (section, first) = start.rsplit_once('.').expect("a marker has a section and a key");
            (section, Some((first, last)))
        }
        None => (marker, None),
    };
    let found = SECTIONS.iter().find(|(path, _)| *path == section);
    let (path, keys) = found.unwrap_or_else(|| panic!("the table has no section `{section}`"));
    let position = |name: &str| {
        let position = keys.iter().position(|key| key.name == name);
        position.unwrap_or_else(|| panic!("the table has no key `{section}.{name}`"))
    };
    let range = names.map_or(0..=keys.len() - 1, |(first, last)| position(first)..=position(last));
    keys[range].iter().map(|key| (*path, key)).collect()
}

/// Formats a key as an item of a list: its name, its facts in parentheses, and its documentation.
fn item(key: &Key) -> String {
    let default = match key.default {
        DefaultValue::Required => "required".to_owned(),
        DefaultValue::Unset => "default none".to_owned(),
        DefaultValue::Number(number) => format!("default {number}"),
        DefaultValue::Real(number) => format!("default {number}"),
        DefaultValue::Flag(flag) => format!("default {flag}"),
        DefaultValue::Text(text) => format!("default `\"{text}\"`"),
        DefaultValue::Derived(words) => format!("default {words}"),
    };
    let range = RangeText(&key.kind).to_string();
    let restart = if key.reload == Reload::Fixed { "needs a restart" } else { "" };
    let facts: Vec<_> =
        [unit(&key.kind), &default, &range, restart].into_iter().filter(|fact| !fact.is_empty()).collect();
    let lines: Vec<_> = key.documentation.iter().map(|line| line.trim()).collect();
    wrap(&format!("- `{}` ({}): {}", key.name, facts.join("; "), lower(&lines.join(" "))))
}

fn unit(kind: &Kind) -> &'static str {
    match kind {
        Kind::Address => "address with port",
        Kind::Path => "path",
        Kind::Text => "string",
        Kind::Boolean => "boolean",
        Kind::Integer | Kind::Count(_) | Kind::Real(..) => "number",
        Kind::Bytes(_) => "bytes",
        Kind::Milliseconds(_) => "milliseconds",
        Kind::List => "list of strings",
        Kind::Map | Kind::Table => "table",
        Kind::Tables => "list of tables",
    }
}

/// Makes the first letter of a sentence lower-case, unless an abbreviation begins it.
fn lower(text: &str) -> String {
    let word = text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    if word.len() > 1 && word.chars().all(|letter| letter.is_uppercase() || letter.is_numeric()) {
        return text.to_owned();
    }
    let first: String = text.chars().take(1).flat_map(char::to_lowercase).collect();
    format!("{first}{}", text.chars().skip(1).collect::<String>())
}

/// Breaks an item of a list into lines.
fn wrap(text: &str) -> String {
    let (mut wrapped, mut columns) = (String::new(), 0);
    for word in text.split(' ') {
        let width = word.chars().count();
        if columns > 0 && columns + 1 + width > COLUMNS {
            wrapped.push_str("\n ");
            columns = 1;
        }
        if columns > 0 {
            wrapped.push(' ');
            columns += 1;
        }
        wrapped.push_str(word);
        columns += width;
    }
    wrapped + "\n"
}

#[test]
fn configuration_page_lists_every_key() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md"));
    let page = std::fs::read_to_string(&path).unwrap();
    let (written, documented) = rewrite(&page);
    for (section, keys) in SECTIONS {
        for key in keys {
            let name = format!("{section}.{}", key.name);
            let times = documented.iter().filter(|documented| **documented == name).count();
            assert_eq!(times, 1, "docs/CONFIGURATION.md documents `{name}` {times} times");
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    let differs = page.lines().zip(written.lines()).find(|(line, expected)| line != expected);
    assert!(
        page == written,
        "docs/CONFIGURATION.md differs from the table of keys in host/config/src/table.rs; run `make docs` to \
         update it; the first difference is {differs:#?}"
    );
}

#[test]
fn items_are_wrapped_and_abbreviations_kept() {
    assert_eq!(lower("A text."), "a text.");
    assert_eq!(lower("TLS on `listen`."), "TLS on `listen`.");
    let long = "- word ".to_owned() + &"x".repeat(COLUMNS - 7) + " next";
    assert_eq!(wrap(&long), format!("{}\n  next\n", &long[..COLUMNS]));
}
