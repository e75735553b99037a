//! The table of all fixed limits, docs/LIMITS.md, from the `limits.rs` of each crate.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Beginning of the document.
const HEAD: &str = "# Fixed limits

Limits that no configuration changes. The keys of infer.toml have their own limits, which
[CONFIGURATION.md](CONFIGURATION.md) lists. This file is generated from the `limits.rs` of each
crate; `make docs` writes it.
";

/// A constant of a `limits.rs`.
#[derive(Debug)]
pub struct FixedLimit {
    /// Name of the constant.
    pub name: String,
    /// Its documentation on one line; empty if it has none.
    pub doc: String,
    kind: String,
    value: String,
}

impl FixedLimit {
    /// Reads the constants of `text`, a `limits.rs`.
    pub fn read(text: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut doc: Vec<&str> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(line) = line.strip_prefix("///") {
                doc.push(line.trim());
                continue;
            }
            let item = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
            if let Some(item) = item.strip_prefix("const ") {
                let mut item = item.to_owned();
                while !item.ends_with(';') {
                    let Some(more) = lines.next() else { break };
                    item = format!("{item} {}", more.trim());
                }
                let (name, rest) = item.split_once(':').unwrap_or((&item, ""));
                let (kind, value) = rest.split_once('=').unwrap_or((rest, ""));
                found.push(FixedLimit {
                    name: name.trim().to_owned(),
                    doc: doc.join(" "),
                    kind: kind.trim().to_owned(),
                    value: value.trim().trim_end_matches(';').to_owned(),
                });
            }
            doc.clear();
        }
        found
    }

    /// The number in the declaration, if it can be computed from `known` constants.
    fn number(&self, known: &BTreeMap<String, u64>) -> Option<u64> {
        let value = self.value.strip_prefix("Limit::new(").and_then(|value| value.rsplit_once(", \""));
        evaluate(value.map_or(self.value.as_str(), |(value, _)| value), known)
    }

    fn unit(&self) -> String {
        let quoted = self.value.rsplit_once(", \"").and_then(|(_, unit)| unit.strip_suffix("\")"));
        if let (Some(unit), "Limit") = (quoted, self.kind.as_str()) {
            return unit.to_owned();
        }
        let words: Vec<_> = self.name.to_lowercase().split('_').map(str::to_owned).collect();
        match words.last().map(String::as_str) {
            _ if self.kind == "Duration" => "time".to_owned(),
            Some("bytes") => "bytes".to_owned(),
            Some("ns") => "ns".to_owned(),
            _ if self.doc.starts_with("Maximum nesting of ") => "levels".to_owned(),
            _ if self.doc.starts_with("Maximum number of ") => {
                counted(&self.doc["Maximum number of ".len()..])
            }
            _ => words[usize::from(matches!(words[0].as_str(), "max" | "min"))..].join(" "),
        }
    }

    fn shown(&self, number: Option<u64>, unit: &str) -> String {
        for (constructor, unit) in [("secs", "s"), ("millis", "ms"), ("micros", "µs")] {
            let prefix = format!("Duration::from_{constructor}(");
            if let Some(number) = self.value.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(')')) {
                return format!("{} {unit}", number.replace('_', ","));
            }
        }
        match number {
            Some(number) if unit == "bytes" => bytes(number),
            Some(number) => thousands(number),
            None => format!("`{}`", self.value),
        }
    }
}

/// The document for `crates`: the name of each, and the text of its `limits.rs`.
pub fn document(crates: &[(String, String)]) -> String {
    let mut text = HEAD.to_owned();
    // Constants may also be those of a crate above in the document.
    let mut known = BTreeMap::new();
    for (name, source) in crates {
        let _ = write!(
            text,
            "\n## {name}\n\n| Name | Value | Unit | Limit and protection |\n|---|---:|---|---|\n"
        );
        for limit in FixedLimit::read(source) {
            let number = limit.number(&known);
            known.extend(number.map(|number| (limit.name.clone(), number)));
            let unit = limit.unit();
            let FixedLimit { name, doc, .. } = &limit;
            let doc = doc.replace('|', "\\|").replace("[`", "`").replace("`]", "`");
            let _ = writeln!(text, "| `{name}` | {} | {unit} | {doc} |", limit.shown(number, &unit));
        }
    }
    text
}

/// Evaluates sums, products and shifts of numbers and of `known` constants.
fn evaluate(expression: &str, known: &BTreeMap<String, u64>) -> Option<u64> {
    let expression = expression.trim().trim_end_matches(" as usize");
    for (operator, apply) in [
        (" << ", (|a, b| a.checked_shl(b as u32)) as fn(u64, u64) -> Option<u64>),
        (" + ", u64::checked_add),
        (" * ", u64::checked_mul),
    ] {
        if let Some((left, right)) = expression.rsplit_once(operator) {
            return apply(evaluate(left, known)?, evaluate(right, known)?);
        }
    }
    if let Some(text) = expression.strip_prefix('"').and_then(|text| text.strip_suffix("\".len()")) {
        return Some(text.len() as u64);
    }
    match expression {
        "i32::MAX" => Some(i32::MAX as u64),
        "u32::MAX" => Some(u64::from(u32::MAX)),
        name => {
            let constant = name.rsplit("::").next().unwrap_or(name).trim_end_matches(".max()");
            known.get(constant).copied().or_else(|| name.replace('_', "").parse().ok())
        }
    }
}

/// The noun at the beginning of `text`, up to the first word that begins a clause.
fn counted(text: &str) -> String {
    const ENDS: [&str; 8] = ["of", "per", "that", "in", "on", "for", "with", "from"];
    let words = text.split(' ').take_while(|word| !ENDS.contains(word));
    let mut noun = String::new();
    for word in words {
        let is_last = word.ends_with([';', ',', '.', ':']);
        noun.push_str(if noun.is_empty() { "" } else { " " });
        noun.push_str(word.trim_end_matches([';', ',', '.', ':']));
        if is_last {
            break;
        }
    }
    noun
}

fn bytes(number: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if number >= 1 << shift && number.is_multiple_of(1 << shift) {
            return format!("{} {unit}", thousands(number >> shift));
        }
    }
    thousands(number)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
