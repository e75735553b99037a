//! Regular expressions in a tokenizer's file.

use fancy_regex::Expr;
use serde_json::Value;

use crate::limits::MAX_PATTERN_BYTES;
use crate::text::{QUOTE_BYTES, excerpt};

/// Returns the letters and digits in the patterns of a tokenizer's file, each once, at most 16.
pub(super) fn letters(file: &Value) -> Vec<char> {
    let mut patterns = Vec::new();
    collect_patterns(file, &mut patterns);
    let mut letters = Vec::new();
    for letter in patterns.iter().flat_map(|pattern| pattern.chars()).filter(|c| c.is_alphanumeric()) {
        if letters.len() < 16 && !letters.contains(&letter) {
            letters.push(letter);
        }
    }
    letters
}

fn collect_patterns<'v>(value: &'v Value, patterns: &mut Vec<&'v str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_patterns(item, patterns)),
        Value::Object(members) => {
            patterns.extend(members.get("Regex").and_then(Value::as_str));
            members.values().for_each(|member| collect_patterns(member, patterns));
        }
        _ => {}
    }
}

/// Rejects a pattern whose time may grow exponentially: a repetition inside a repetition, in a
/// pattern that needs backtracking. The others take at most quadratic time for a text, which shows
/// when the tokenizer is tried.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    let shown = || excerpt(pattern, QUOTE_BYTES);
    if pattern.len() > MAX_PATTERN_BYTES {
        let found = pattern.len();
        return Err(format!(
            "the pattern `{}` has {found} bytes, expected at most {MAX_PATTERN_BYTES}",
            shown()
        ));
    }
    let tree = Expr::parse_tree(pattern)
        .map_err(|error| format!("the pattern `{}` is invalid: {error}", shown()))?;
    if is_fancy(&tree.expr) && has_nested_repeat(&tree.expr, false) {
        return Err(format!(
            "the pattern `{}` repeats a repetition, whose time may grow exponentially; rewrite it",
            shown()
        ));
    }
    Ok(())
}

/// True if `expr` needs backtracking, such as a look-ahead or a back reference.
fn is_fancy(expr: &Expr) -> bool {
    let is_plain = matches!(
        expr,
        Expr::Empty
            | Expr::Any { .. }
            | Expr::Assertion(_)
            | Expr::Literal { .. }
            | Expr::Concat(_)
            | Expr::Alt(_)
            | Expr::Group(_)
            | Expr::Repeat { .. }
            | Expr::Delegate { .. }
    );
    !is_plain || children(expr).into_iter().any(is_fancy)
}

/// True if a repetition contains another one, each of more than a few times.
fn has_nested_repeat(expr: &Expr, inside: bool) -> bool {
    let is_repeat = matches!(expr, Expr::Repeat { hi, .. } if *hi > 4);
    let is_inside = inside || is_repeat;
    (is_repeat && inside) || children(expr).into_iter().any(|child| has_nested_repeat(child, is_inside))
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Concat(parts) | Expr::Alt(parts) => parts.iter().collect(),
        Expr::Group(child) | Expr::LookAround(child, _) | Expr::AtomicGroup(child) => vec![child],
        Expr::Repeat { child, .. } => vec![child],
        Expr::Conditional { condition, true_branch, false_branch } => {
            vec![condition, true_branch, false_branch]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn letters_of_patterns_are_found() {
        let pattern = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex } });
        let file = json!({ "pre_tokenizer": { "pretokenizers": [pattern("b[^z]*z|b"), pattern("1")] } });
        assert_eq!(letters(&file), ['b', 'z', '1']);
    }

    #[test]
    fn patterns_of_models_are_accepted() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"(?:[a-z]+ )+",
        ] {
            check_pattern(pattern).unwrap();
        }
    }
}
