//! House rules that the compiler does not check. `make tidy` runs them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use infer_tidy::limit_table::{self, FixedLimit};
use infer_tidy::modules::Modules;
use infer_tidy::rust_source::RustSource;
use infer_tidy::{links, names, prose, script};

/// Maximum lines of a Rust file.
const MAX_LINES: usize = 400;

/// Longer files, with the reason for each.
const LONG_FILES: [(&str, &str); 0] = [];

/// Files with texts for models, which are data and not messages.
const TEXTS: [&str; 3] =
    ["benches/language.rs", "guest-models/moderate/src/builtin.rs", "host/bench/src/work.rs"];

/// Folders of inputs and weights, whose files are data even where they have comments.
const DATA: [&str; 2] = ["fuzz/seeds/", "weights/"];

/// The generated table of limits.
const LIMITS: &str = "docs/LIMITS.md";

/// Crates of the host from the bottom up. Each may depend only on those before it.
const LAYERS: [&str; 10] =
    ["kernels", "engine", "train", "sandbox", "models", "config", "control", "server", "bench", "infer"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository exists")
}

/// Folders without files of ours.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", ".venv"];

/// Files that end in `extension`, relative to the root, in order.
fn files(extension: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder is listed") {
            let entry = entry.expect("an entry is listed");
            let (name, path) = (entry.file_name(), entry.path());
            let kind = entry.file_type().expect("an entry has a type");
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|found| found == extension) {
                let relative = path.strip_prefix(root()).expect("below the root");
                found.push(relative.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Root files of the crates of the host and of the guests.
fn crate_roots() -> Vec<String> {
    let is_root = |name: &String| {
        let is_library = name.ends_with("/src/lib.rs");
        name == "host/cli/main.rs"
            || is_library && ["host/", "guest-models/"].iter().any(|folder| name.starts_with(folder))
    };
    let roots: Vec<_> = files("rs").into_iter().filter(is_root).collect();
    assert!(roots.len() >= 16, "{roots:?}");
    roots
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn rust_files_are_short() {
    let mut problems = Vec::new();
    for name in files("rs") {
        let lines = read(&name).lines().count();
        let is_listed = LONG_FILES.iter().any(|(long, _)| *long == name);
        if lines > MAX_LINES && !is_listed {
            problems.push(format!("{name}: {lines} lines, expected at most {MAX_LINES}; split it"));
        }
        if lines <= MAX_LINES && is_listed {
            problems.push(format!("{name}: {lines} lines; remove it from LONG_FILES"));
        }
    }
    assert_none(&problems);
}

#[test]
fn modules_have_no_cycles() {
    let mut problems = Vec::new();
    for name in crate_roots() {
        let modules = Modules::read(&root().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {} modules", modules.len());
        for module in modules.names() {
            let targets: Vec<_> = modules.uses(module).into_keys().collect();
            println!("    {module} -> {}", targets.join(", "));
        }
        for cycle in modules.cycles() {
            problems.push(format!("{name}: {} modules import each other:", cycle.len()));
            for module in &cycle {
                for (target, path) in modules.uses(module).iter().filter(|(target, _)| cycle.contains(target))
                {
                    let file = modules.file(module).strip_prefix(root()).unwrap_or(modules.file(module));
                    problems.push(format!("    {}: uses {target} by `{path}`", file.display()));
                }
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn crates_depend_downwards() {
    let mut problems = Vec::new();
    for (layer, name) in LAYERS.iter().enumerate() {
        let manifest = match *name {
            "infer" => "Cargo.toml".to_owned(),
            name => format!("host/{name}/Cargo.toml"),
        };
        let text = read(&manifest);
        let dependencies = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let Some(found) = line.strip_prefix("infer-").and_then(|rest| rest.split(['.', ' ']).next())
            else {
                continue;
            };
            let is_below = LAYERS[..layer].contains(&found);
            if !is_below {
                problems.push(format!("{manifest}: `infer-{found}` is not below `{name}`"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn comments_are_plain_english() {
    let mut problems = Vec::new();
    for name in files("rs").iter().filter(|name| !name.starts_with("tests/tidy")) {
        for (line, text) in RustSource::parse(&read(name)).comments {
            problems.extend(prose::problems(&text).map(|problem| format!("{name}:{line}: {problem}")));
        }
    }
    assert_none(&problems);
}

/// Rust files whose names and strings are checked: not the rules themselves, which list the words.
fn named_files() -> impl Iterator<Item = (String, RustSource)> {
    let is_checked = |name: &String| !name.starts_with("tests/tidy");
    files("rs").into_iter().filter(is_checked).map(|name| {
        let source = RustSource::parse(&read(&name));
        (name, source)
    })
}

#[test]
fn identifiers_and_strings_are_plain_english() {
    let mut problems = Vec::new();
    for (name, source) in named_files() {
        let mut found = names::in_identifiers(&source);
        if !TEXTS.contains(&name.as_str()) {
            found.extend(names::in_strings(&source));
        }
        problems.extend(found.into_iter().map(|problem| format!("{name}:{problem}")));
    }
    assert_none(&problems);
}

#[test]
fn test_names_have_at_most_eight_words() {
    let mut problems = Vec::new();
    for (name, source) in named_files() {
        problems.extend(names::long_tests(&source).into_iter().map(|problem| format!("{name}:{problem}")));
    }
    assert_none(&problems);
}

#[test]
fn limits_are_declared_in_one_file() {
    let mut problems = Vec::new();
    for (name, source) in named_files() {
        let is_host = name.starts_with("host/cli/") || name.starts_with("host/") && name.contains("/src/");
        if is_host && !name.ends_with("/limits.rs") {
            problems.extend(names::limits(&source).into_iter().map(|problem| format!("{name}:{problem}")));
        }
    }
    for (name, text) in limit_files() {
        for limit in FixedLimit::read(&text).iter().filter(|limit| limit.doc.is_empty()) {
            problems.push(format!("{name}: document `{}`: the unit, and what it protects", limit.name));
        }
    }
    assert_none(&problems);
}

/// Crates of the host with a `limits.rs`, in the order of [`LAYERS`], and its text.
fn limit_files() -> Vec<(String, String)> {
    let crates = LAYERS.iter().map(|name| if *name == "infer" { "cli" } else { name });
    let found = crates.filter_map(|name| {
        let folder = if name == "cli" { "host/cli".to_owned() } else { format!("host/{name}/src") };
        let text = std::fs::read_to_string(root().join(folder).join("limits.rs")).ok()?;
        Some((name.to_owned(), text))
    });
    found.collect()
}

#[test]
fn table_of_limits_is_current() {
    let table = limit_table::document(&limit_files());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(LIMITS), &table).expect("the table is written");
    }
    assert!(read(LIMITS) == table, "{LIMITS} is out of date; run `make docs`");
}

#[test]
fn comments_and_markdown_fit_the_columns() {
    let mut problems = Vec::new();
    for name in files("rs") {
        let text = read(&name);
        let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        problems.extend(prose::too_wide(comments).map(|problem| format!("{name}:{problem}")));
    }
    // The rows of a generated table are as long as they are.
    for name in files("md").into_iter().filter(|name| name != LIMITS) {
        let text = read(&name);
        problems.extend(prose::too_wide(text.lines().enumerate()).map(|problem| format!("{name}:{problem}")));
    }
    assert_none(&problems);
}

/// Files with comments that are not Rust, except data.
fn script_files() -> Vec<String> {
    let by_extension = script::MARKERS.iter().flat_map(|(extension, _)| files(extension));
    let named = by_extension.chain(script::WITHOUT_EXTENSION.map(str::to_owned));
    let is_data = |name: &String| {
        DATA.iter().any(|folder| name.starts_with(folder)) && !name.starts_with("weights/convert/")
    };
    named.filter(|name| !is_data(name)).collect()
}

#[test]
fn script_comments_are_plain_and_fit() {
    let mut problems = Vec::new();
    for name in script_files() {
        let text = read(&name);
        let comments = script::comments(&name, &text);
        problems.extend(prose::too_wide(comments.iter().copied()).map(|problem| format!("{name}:{problem}")));
        for (index, comment) in comments {
            let line = index + 1;
            problems.extend(prose::problems(comment).map(|problem| format!("{name}:{line}: {problem}")));
        }
    }
    assert_none(&problems);
}

#[test]
fn markdown_links_lead_somewhere() {
    let mut problems = Vec::new();
    for name in files("md") {
        problems.extend(links::broken(&root(), &name).map(|problem| format!("{name}: {problem}")));
    }
    assert_none(&problems);
}

#[test]
fn documents_name_existing_functions() {
    let sources: Vec<_> = files("rs").iter().map(|name| read(name)).collect();
    let definitions = sources.iter().flat_map(|source| source.split("fn ").skip(1));
    let functions: HashSet<_> = definitions.filter_map(|rest| rest.split(['(', '<']).next()).collect();
    let mut problems = Vec::new();
    for name in files("md") {
        let text = read(&name);
        let missing = links::functions(&text)
            .filter(|path| !functions.contains(path.rsplit("::").next().unwrap_or_default()))
            .map(|path| format!("{name}: `{path}` does not exist"));
        problems.extend(missing);
    }
    assert_none(&problems);
}

/// The rules themselves: each finds what breaks it.
#[test]
fn each_rule_finds_a_breach() {
    assert_eq!(prose::problems(" Whether it is ready.").count(), 1);
    assert_eq!(prose::problems(" What the client was told.").count(), 2);
    assert_eq!(prose::problems(" Returns true if it is ready.").count(), 0);
    let source = RustSource::parse("fn told() {}\nstruct AsksForKey;\nlet kept = \"nobody told me\";\n");
    assert_eq!(names::in_identifiers(&source).len(), 2);
    assert_eq!(names::in_strings(&source).len(), 2);
    let tests = "#[test]\nfn a_b_c_d_e_f_g_h() {}\n#[tokio::test]\nasync fn a_b_c_d_e_f_g_h_i() {}\n";
    assert_eq!(names::long_tests(&RustSource::parse(tests)).len(), 1);
    let constants = "pub(crate) const MAX_BYTES: u64 = 1;\nconst MIN_AGE: u64 = 1;\nconst MAX: u64 = 1;\n";
    assert_eq!(names::limits(&RustSource::parse(constants)).len(), 2);
    let limits = "/// Maximum size\n/// of a file.\nconst MAX_FILE_BYTES: u64 = 64 << 20;\n\n\
                  pub const MAX_ITEMS: Limit = Limit::new(2 * MAX_FILE_BYTES, \"items\");\n";
    assert_eq!(FixedLimit::read(limits).iter().filter(|limit| limit.doc.is_empty()).count(), 1);
    let table = limit_table::document(&[("a".to_owned(), limits.to_owned())]);
    assert!(table.contains("| `MAX_FILE_BYTES` | 64 MiB | bytes | Maximum size of a file. |"), "{table}");
    assert!(table.contains("| `MAX_ITEMS` | 134,217,728 | items |"), "{table}");
    let above = "const MAX_TURNS: Limit = Limit::new(a::limits::MAX_FILE_BYTES, \"turns\");\n";
    let table =
        limit_table::document(&[("a".to_owned(), limits.to_owned()), ("b".to_owned(), above.to_owned())]);
    assert!(table.contains("| `MAX_TURNS` | 67,108,864 | turns |"), "{table}");

    let references = "`serve::starts` and `Limits::new`, `a` `b::c_d`.";
    assert_eq!(links::functions(references).collect::<Vec<_>>(), ["serve::starts", "b::c_d"]);

    let wide = "x".repeat(prose::MAX_COLUMNS + 1);
    assert_eq!(prose::too_wide([(0, wide.as_str())].into_iter()).count(), 1);
    assert_eq!(prose::too_wide([(0, &wide[1..])].into_iter()).count(), 0);

    let python = "\"\"\"Whether it runs.\n\nReasons.\n\"\"\"\n# Told once.\nTEXT = \"\"\"\n# data\n\"\"\"\nrun()  # code\n";
    let lines = script::comments("a.py", python);
    assert_eq!(lines.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(lines.iter().flat_map(|(_, line)| prose::problems(line)).count(), 2);
    for (name, text) in [
        ("a.sh", "# told\necho told\n"),
        ("a.mjs", "// told\nlet a = told;\n"),
        ("a.lua", "-- told\nlocal told\n"),
        (".ci/run", "# told\ntold\n"),
        ("Makefile", "a: told ## told\n\t@echo told\n"),
    ] {
        let lines = script::comments(name, text);
        let found = lines.iter().flat_map(|(_, line)| prose::problems(line));
        assert_eq!(found.count(), 1, "{name}");
    }

    let folder = std::env::temp_dir().join(format!("infer-tidy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a scratch file");
    write("lib.rs", "mod a;\nmod b;\n");
    write("a.rs", "use crate::b::B;\npub struct A(B);\n");
    write("b.rs", "/* crate::a */ pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n");
    assert_eq!(Modules::read(&folder.join("lib.rs")).expect("modules").cycles().len(), 0);
    write("b.rs", "pub struct B;\nimpl B { fn a(self) { let _ = super::a::A(self); } }\n");
    assert_eq!(Modules::read(&folder.join("lib.rs")).expect("modules").cycles(), [["crate::a", "crate::b"]]);
    write("page.md", "# One title\n[a](lib.rs) [b](missing.rs) [c](#one-title) [d](#other)\n");
    assert_eq!(links::broken(&folder, "page.md").count(), 2);
    std::fs::remove_dir_all(&folder).expect("the scratch folder is removed");
}
