//! The graph of a crate's modules: which module uses items of which other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::rust_source::RustSource;

/// A crate's modules and the imports between them. Test modules are left out.
#[derive(Debug, Default)]
pub struct Modules {
    modules: BTreeMap<String, Module>,
}

/// One source file.
#[derive(Debug)]
struct Module {
    file: PathBuf,
    code: String,
    /// Names that `use` brings into scope, with the paths that they stand for.
    names: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Reads the crate whose root is `file`, following its `mod` declarations.
    ///
    /// # Errors
    ///
    /// When a module's file is missing or not readable.
    pub fn read(file: &Path) -> std::io::Result<Modules> {
        let mut modules = Modules::default();
        modules.read_module("crate", file, true)?;
        Ok(modules)
    }

    fn read_module(&mut self, path: &str, file: &Path, is_root: bool) -> std::io::Result<()> {
        let text = std::fs::read_to_string(file)?;
        let code = without_tests(&RustSource::parse(&text).code);
        let folder = file.parent().unwrap_or(Path::new(""));
        let stem = file.file_stem().unwrap_or_default();
        let children_in = if is_root || stem == "mod" { folder.to_owned() } else { folder.join(stem) };
        for (name, has_path) in declared(&code) {
            let child = if let Some(explicit) = has_path.then(|| path_attribute(&text, &name)).flatten() {
                folder.join(explicit)
            } else {
                let flat = children_in.join(format!("{name}.rs"));
                if flat.exists() { flat } else { children_in.join(&name).join("mod.rs") }
            };
            self.read_module(&format!("{path}::{name}"), &child, false)?;
        }
        let (names, code) = imports(&code);
        self.modules.insert(path.to_owned(), Module { file: file.to_owned(), code, names });
        Ok(())
    }

    /// The number of modules.
    #[expect(clippy::len_without_is_empty, reason = "a crate has at least its root")]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Paths of the modules, such as `crate::files`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// The file of a module.
    pub fn file(&self, module: &str) -> &Path {
        &self.modules[module].file
    }

    /// The modules that `module` uses items of, each with one of the paths that it does so by.
    pub fn uses(&self, module: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let Module { code, names, .. } = &self.modules[module];
        let imported = names.values().cloned();
        let spelt = paths(code).into_iter().filter(|path| path.len() > 1);
        for path in imported.chain(spelt) {
            if let Some(target) = self.resolve(module, &path, 8).filter(|target| target != module) {
                found.entry(target).or_insert_with(|| path.join("::"));
            }
        }
        found
    }

    /// The module that defines what `path`, as written in `module`, stands for.
    fn resolve(&self, module: &str, path: &[String], depth: usize) -> Option<String> {
        if depth == 0 {
            return None;
        }
        let mut at = match path.first()?.as_str() {
            "crate" => "crate".to_owned(),
            "self" => module.to_owned(),
            "super" => module.rsplit_once("::")?.0.to_owned(),
            first => {
                if self.modules.contains_key(&format!("{module}::{first}")) {
                    format!("{module}::{first}")
                } else {
                    let target = self.modules[module].names.get(first)?;
                    if target == path {
                        return None;
                    }
                    let whole: Vec<_> = target.iter().chain(&path[1..]).cloned().collect();
                    return self.resolve(module, &whole, depth - 1);
                }
            }
        };
        for (index, segment) in path.iter().enumerate().skip(1) {
            let child = format!("{at}::{segment}");
            if segment == "super" {
                at = at.rsplit_once("::")?.0.to_owned();
            } else if self.modules.contains_key(&child) {
                at = child;
            } else if let Some(target) = self.modules[&at].names.get(segment) {
                // Re-exported: the module that defines it is meant.
                let whole: Vec<_> = target.iter().chain(&path[index + 1..]).cloned().collect();
                return self.resolve(&at, &whole, depth - 1).or(Some(at));
            } else {
                return Some(at);
            }
        }
        Some(at)
    }

    /// The groups of modules that use each other, directly or through others.
    pub fn cycles(&self) -> Vec<Vec<String>> {
        let graph: BTreeMap<&str, Vec<String>> =
            self.modules.keys().map(|name| (name.as_str(), self.uses(name).into_keys().collect())).collect();
        let reach = |from: &str| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(next) = open.pop() {
                for target in &graph[next.as_str()] {
                    if seen.insert(target.clone()) {
                        open.push(target.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&str, BTreeSet<String>> =
            graph.keys().map(|name| (*name, reach(name))).collect();
        let mut groups: BTreeSet<Vec<String>> = BTreeSet::new();
        for (name, targets) in &reached {
            let group: Vec<String> =
                targets.iter().filter(|target| reached[target.as_str()].contains(*name)).cloned().collect();
            if group.len() > 1 {
                groups.insert(group);
            }
        }
        groups.into_iter().collect()
    }
}

/// `code` without the items that are compiled for tests alone.
fn without_tests(code: &str) -> String {
    let mut result = String::new();
    let mut rest = code;
    // Literals are blank: `cfg(test)`, `cfg(any(test, fuzzing))` and `test` alone are left.
    while let Some(at) = rest.find("#[cfg(test)]") {
        result.push_str(&rest[..at]);
        let after = &rest[at..];
        let end = after.find([';', '{']).map_or(after.len(), |end| {
            if after.as_bytes()[end] == b';' { end + 1 } else { end + braces(&after[end..]) }
        });
        result.push_str(&"\n".repeat(after[..end].matches('\n').count()));
        rest = &after[end..];
    }
    result + rest
}

/// The length of the block that `code` begins with.
fn braces(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Names of `mod name;` declarations, and whether an attribute gives the file.
fn declared(code: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for line in code.split_inclusive(';') {
        let statement = line.rsplit(['}', '{', ';']).find(|part| part.contains("mod ")).unwrap_or("");
        let Some((before, name)) = line.trim_end_matches(';').rsplit_once("mod ") else { continue };
        let name = name.trim();
        if !name.is_empty() && name.chars().all(is_word) && !before.ends_with(is_word) {
            found.push((name.to_owned(), statement.contains("#[path") || before.trim_end().ends_with(']')));
        }
    }
    found
}

/// The file that `#[path = "…"]` gives for the module `name`.
fn path_attribute(text: &str, name: &str) -> Option<String> {
    let at = text.find(&format!("mod {name};"))?;
    let before = text[..at].trim_end_matches(|c: char| is_word(c) || "() ".contains(c)).trim_end();
    let attribute = before.rsplit_once("#[path = \"")?.1;
    attribute.strip_suffix("\"]").map(str::to_owned)
}

/// Names that the `use` items of `code` bring into scope, with their paths, and the code without
/// these items.
fn imports(code: &str) -> (BTreeMap<String, Vec<String>>, String) {
    let mut names = BTreeMap::new();
    let mut others = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let is_item = !rest[..at].ends_with(is_word);
        let after = &rest[at + 4..];
        let end = if is_item { after.find(';').unwrap_or(after.len()) } else { 0 };
        if is_item {
            tree(&after[..end], &[], &mut names);
            others.push_str(&rest[..at]);
        } else {
            others.push_str(&rest[..at + 4]);
        }
        rest = &after[end..];
    }
    (names, others + rest)
}

/// Adds the names of a tree of imports below `prefix`.
fn tree(text: &str, prefix: &[String], names: &mut BTreeMap<String, Vec<String>>) {
    let text = text.trim();
    if let Some(open) = text.find('{') {
        let mut below = prefix.to_vec();
        below.extend(
            text[..open].split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned),
        );
        let inside = &text[open + 1..text.rfind('}').unwrap_or(text.len())];
        let mut depth = 0_usize;
        let mut start = 0;
        for (at, character) in inside.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    tree(&inside[start..at], &below, names);
                    start = at + 1;
                }
                _ => {}
            }
        }
        tree(&inside[start..], &below, names);
        return;
    }
    if text.is_empty() {
        return;
    }
    let (path, alias) = text.split_once(" as ").map_or((text, None), |(path, alias)| (path, Some(alias)));
    let mut whole = prefix.to_vec();
    whole.extend(path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()));
    if whole.last().is_some_and(|last| last == "self") {
        whole.pop();
    }
    let Some(last) = whole.last().cloned() else { return };
    let name = match (alias.map(str::trim), last.as_str()) {
        (Some("_"), _) | (None, "*") => whole.join("::"),
        (Some(alias), _) => alias.to_owned(),
        (None, _) => last,
    };
    names.insert(name, whole);
}

/// Paths of two or more segments in `code`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut segments: Vec<String> = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_word) {
        let joined = !segments.is_empty() && rest[..start] == *"::";
        if !joined {
            if segments.len() > 1 {
                found.push(std::mem::take(&mut segments));
            }
            segments.clear();
        }
        let word = &rest[start..];
        let end = word.find(|character| !is_word(character)).unwrap_or(word.len());
        segments.push(word[..end].to_owned());
        rest = &word[end..];
    }
    if segments.len() > 1 {
        found.push(segments);
    }
    found
}
