//! Converts a guest's core module into a component: `componentize IN.wasm OUT.wasm`.
//!
//! The types of the imports and exports come from custom sections that wit-bindgen leaves in the
//! module. No adapter is added, so a component imports exactly the parts of `wit/infer.wit` that
//! its guest uses; they are printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match arguments.as_slice() {
        [module, component] => componentize(module, component),
        _ => Err(anyhow::anyhow!(
            "expected two paths, found {}: componentize IN.wasm OUT.wasm",
            arguments.len()
        )),
    };
    match result {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            use std::io::Write as _;
            // Nothing can report a closed standard error.
            let _ = writeln!(std::io::stderr(), "componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the component, and returns its description.
///
/// # Errors
///
/// When a file cannot be read or written, when `module` is not a core module with wit-bindgen's
/// sections, or when the component does not validate.
fn componentize(module: &Path, component: &Path) -> Result<String> {
    let bytes = std::fs::read(module).with_context(|| format!("cannot read `{}`", module.display()))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(ComponentEncoder::encode)
        .with_context(|| format!("`{}` is not a core module of a guest", module.display()))?;
    let interfaces = interfaces(&encoded)?;
    // An unchanged component keeps its time stamp, so the program that embeds it is not recompiled.
    if std::fs::read(component).ok().as_deref() != Some(&encoded[..]) {
        std::fs::write(component, &encoded)
            .with_context(|| format!("cannot write `{}`", component.display()))?;
    }
    Ok(format!("{}: {} KiB, {interfaces}", component.display(), encoded.len().div_ceil(1024)))
}

/// The component's imports and exports, by interface.
fn interfaces(component: &[u8]) -> Result<String> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("the encoder wrote a WIT package instead of a component");
    };
    let world = &resolve.worlds[world];
    let exports = world.exports.keys().map(|key| resolve.name_world_key(key));
    let imports = world.imports.keys().map(|key| resolve.name_world_key(key));
    Ok(format!("exports {}; imports {}", unversioned(exports), unversioned(imports)))
}

/// Names without the version, which the WIT files pin.
fn unversioned(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.map(|name| name.split('@').next().unwrap_or_default().to_owned()).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_module_is_rejected_by_path() {
        let folder = std::env::temp_dir().join(format!("componentize-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (module, component) = (folder.join("in.wasm"), folder.join("out.wasm"));
        let missing = format!("{:#}", componentize(&module, &component).unwrap_err());
        std::fs::write(&module, b"not WebAssembly").unwrap();
        let garbage = format!("{:#}", componentize(&module, &component).unwrap_err());
        let written = component.exists();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(missing.contains("cannot read `") && missing.contains("in.wasm`"), "{missing}");
        assert!(garbage.contains("in.wasm` is not a core module"), "{garbage}");
        assert!(!written);
    }
}
