//! The interfaces of `wit/deps` are the standard's, type for type.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_parser::{PackageId, Resolve, TypeDefKind};

/// The folder of a dependency's source. Only what this platform needs has been downloaded, so no other is asked for.
fn source_of(package: &str) -> PathBuf {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let facts = String::from_utf8(rustc.stdout).unwrap();
    let platform = facts.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline"])
        .args([Path::new("--filter-platform"), Path::new(platform), Path::new("--manifest-path"), &manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|found| found["name"] == package).unwrap();
    Path::new(found["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Everything but comments, one line an item.
fn describe(path: &Path) -> Vec<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(path).unwrap();
    let mut lines = Vec::new();
    describe_package(&resolve, package, &mut lines);
    lines
}

fn describe_package(resolve: &Resolve, package: PackageId, lines: &mut Vec<String>) {
    let package = &resolve.packages[package];
    lines.push(package.name.to_string());
    for (name, &interface) in &package.interfaces {
        lines.push(format!("interface {name}"));
        let interface = &resolve.interfaces[interface];
        for (name, &ty) in &interface.types {
            lines.push(format!("type {name} = {}", describe_kind(resolve, &resolve.types[ty].kind)));
        }
        for (name, function) in &interface.functions {
            let parameters: Vec<_> = function
                .params
                .iter()
                .map(|param| format!("{}: {}", param.name, describe_type(resolve, &param.ty)))
                .collect();
            let result = function.result.map(|ty| describe_type(resolve, &ty));
            lines.push(format!(
                "func {name} {:?}({}) -> {result:?}",
                std::mem::discriminant(&function.kind),
                parameters.join(", ")
            ));
        }
    }
    for (name, &world) in &package.worlds {
        let world = &resolve.worlds[world];
        let imports: Vec<_> = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
        lines.push(format!("world {name} imports {imports:?}"));
    }
}

fn describe_kind(resolve: &Resolve, kind: &TypeDefKind) -> String {
    match kind {
        TypeDefKind::Enum(cases) => {
            format!("enum {:?}", cases.cases.iter().map(|case| &case.name).collect::<Vec<_>>())
        }
        TypeDefKind::Variant(cases) => {
            let case = |case: &wit_parser::Case| {
                format!("{}({:?})", case.name, case.ty.map(|ty| describe_type(resolve, &ty)))
            };
            format!("variant {:?}", cases.cases.iter().map(case).collect::<Vec<_>>())
        }
        TypeDefKind::Tuple(tuple) => {
            format!("tuple {:?}", tuple.types.iter().map(|ty| describe_type(resolve, ty)).collect::<Vec<_>>())
        }
        TypeDefKind::List(ty) => format!("list {}", describe_type(resolve, ty)),
        TypeDefKind::Option(ty) => format!("option {}", describe_type(resolve, ty)),
        TypeDefKind::Result(result) => format!(
            "result {:?} {:?}",
            result.ok.map(|ty| describe_type(resolve, &ty)),
            result.err.map(|ty| describe_type(resolve, &ty))
        ),
        TypeDefKind::Handle(handle) => {
            let (word, id) = match handle {
                wit_parser::Handle::Own(id) => ("own", id),
                wit_parser::Handle::Borrow(id) => ("borrow", id),
            };
            format!("{word} {:?}", resolve.types[*id].name)
        }
        TypeDefKind::Resource => "resource".to_owned(),
        TypeDefKind::Type(ty) => format!("= {}", describe_type(resolve, ty)),
        other => format!("{other:?}"),
    }
}

fn describe_type(resolve: &Resolve, ty: &wit_parser::Type) -> String {
    match ty {
        wit_parser::Type::Id(id) => {
            let ty = &resolve.types[*id];
            ty.name.clone().unwrap_or_else(|| describe_kind(resolve, &ty.kind))
        }
        plain => format!("{plain:?}"),
    }
}

fn ours(name: &str) -> Vec<String> {
    describe(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/deps").join(name))
}

#[test]
fn wasi_nn_is_the_reference_crates_type_for_type() {
    let reference = describe(&source_of("wasmtime-wasi-nn").join("wit/wasi-nn.wit"));
    assert!(reference.len() > 20, "{reference:?}");
    assert_eq!(ours("nn"), reference);
}

#[test]
fn wasi_config_is_the_reference_crates_type_for_type() {
    let reference = describe(&source_of("wasmtime-wasi-config").join("wit/deps/config"));
    assert!(reference.len() > 4, "{reference:?}");
    assert_eq!(ours("config"), reference);
}
