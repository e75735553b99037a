//! Relative links in Markdown.

use std::path::Path;

/// Links of the file `name` below `root` that lead to no file or heading.
pub fn broken(root: &Path, name: &str) -> impl Iterator<Item = String> {
    let text = std::fs::read_to_string(root.join(name)).unwrap_or_default();
    let folder = root.join(name).parent().unwrap_or(root).to_owned();
    let mut problems = Vec::new();
    for target in targets(&text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
        let file = if path.is_empty() { root.join(name) } else { folder.join(path) };
        if !file.exists() {
            problems.push(format!("`{target}` leads to no file"));
        } else if let Some(anchor) = anchor.filter(|_| file.extension().is_some_and(|kind| kind == "md")) {
            let linked = std::fs::read_to_string(&file).unwrap_or_default();
            if !anchors(&linked).contains(&anchor.to_owned()) {
                problems.push(format!("`{target}` leads to no heading"));
            }
        }
    }
    problems.into_iter()
}

/// Paths such as `connections::slow_head_times_out` in code spans: names of tests and functions.
pub fn functions(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |span: &&str| {
        let is_name = |part: &str| part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        span.contains("::") && span.split("::").all(|part| !part.is_empty() && is_name(part))
    };
    text.split('`').skip(1).step_by(2).filter(is_path)
}

/// Lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Targets of inline links.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            let target = &rest[at + 2..];
            let Some(end) = target.find(')') else { break };
            found.push(target[..end].to_owned());
            rest = &target[end..];
        }
    }
    found
}

/// Anchors of the headings, as GitHub derives them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = heading
            .chars()
            .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
            .map(|character| if character == ' ' { '-' } else { character })
            .collect();
        let earlier = found.iter().filter(|known| **known == anchor).count();
        found.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
    }
    found
}
