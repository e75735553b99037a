//! Compares the interfaces of `wit/deps` with the standard's, type for type.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_parser::{Resolve, TypeDefKind};

/// The folder of a dependency's source. Only packages of this platform are downloaded, so `cargo
/// metadata` must filter by it.
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

/// Describes a package of `folder` and its `deps`, without comments and worlds, one line an item.
fn describe(folder: &Path, name: &str) -> Vec<String> {
    let mut resolve = Resolve::default();
    resolve.push_path(folder).unwrap();
    let (_, package) = resolve.packages.iter().find(|(_, found)| found.name.to_string() == name).unwrap();
    let mut lines = Vec::new();
    for (name, &interface) in &package.interfaces {
        lines.push(format!("interface {name}"));
        let interface = &resolve.interfaces[interface];
        for (name, &ty) in &interface.types {
            lines.push(format!("type {name} = {}", describe_kind(&resolve, &resolve.types[ty].kind)));
        }
        for (name, function) in &interface.functions {
            let parameters: Vec<_> = function
                .params
                .iter()
                .map(|param| format!("{}: {}", param.name, describe_type(&resolve, &param.ty)))
                .collect();
            let result = function.result.map(|ty| describe_type(&resolve, &ty));
            lines.push(format!(
                "func {name} {:?}({}) -> {result:?}",
                std::mem::discriminant(&function.kind),
                parameters.join(", ")
            ));
        }
    }
    lines
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
        TypeDefKind::Record(record) => {
            let field =
                |field: &wit_parser::Field| format!("{}: {}", field.name, describe_type(resolve, &field.ty));
            format!("record {:?}", record.fields.iter().map(field).collect::<Vec<_>>())
        }
        TypeDefKind::Flags(flags) => {
            format!("flags {:?}", flags.flags.iter().map(|flag| &flag.name).collect::<Vec<_>>())
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
        other => panic!("this kind of type is not handled: {other:?}"),
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

/// Asserts that our copy of `name` equals `reference`, a folder or file of the crate `krate` with
/// at least `min` items.
fn same(name: &str, krate: &str, reference: &str, min: usize) {
    let reference = describe(&source_of(krate).join(reference), name);
    assert!(reference.len() >= min, "{reference:?}");
    let ours = describe(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit"), name);
    assert_eq!(ours, reference);
}

#[test]
fn wasi_nn_equals_the_reference_crate() {
    same("wasi:nn@0.2.0-rc-2024-10-28", "wasmtime-wasi-nn", "wit/wasi-nn.wit", 20);
}

#[test]
fn wasi_config_equals_the_reference_crate() {
    same("wasi:config@0.2.0-rc.1", "wasmtime-wasi-config", "wit/deps/config", 4);
}

#[test]
fn wasi_http_equals_the_reference_crate() {
    for (name, min) in [("cli", 20), ("clocks", 8), ("http", 60), ("io", 12), ("random", 6)] {
        same(&format!("wasi:{name}@0.2.12"), "wasmtime-wasi-http", "wit", min);
    }
}
