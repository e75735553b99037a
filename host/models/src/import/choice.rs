//! Choice of the ONNX file of an export.

use anyhow::bail;

use super::export::Export;

/// Files in the order in which they are chosen: full precision first, then the smaller ones.
pub(super) const CANDIDATES: [&str; 8] = [
    "onnx/model.onnx",
    "model.onnx",
    "onnx/model_quantized.onnx",
    "model_quantized.onnx",
    "onnx/model_int8.onnx",
    "model_int8.onnx",
    "onnx/model_fp16.onnx",
    "model_fp16.onnx",
];

/// Endings of weights that are not ONNX files.
pub(super) const OTHER_WEIGHTS: [&str; 4] = [".safetensors", ".bin", ".pt", ".h5"];

/// A model that has weights, but no ONNX file.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{place}` has no ONNX file, only `{found}`; export it with `pip install optimum[onnxruntime]` and \
     `optimum-cli export onnx --model {place} {name}-onnx`, then run `infer import {name}-onnx`"
)]
pub struct NotExported {
    /// Folder, or `OWNER/NAME` on the hub.
    pub place: String,
    /// Name of the model.
    pub name: String,
    /// File with its weights.
    pub found: String,
}

/// Returns the path of the ONNX file in `export`: `wanted`, or else the first candidate.
///
/// # Errors
///
/// If the export has no ONNX file; [`NotExported`] if it has other weights.
pub(super) fn choose(export: &Export, name: &str, wanted: Option<&str>) -> anyhow::Result<String> {
    let known = || {
        let within = |folder: &'static str| {
            let names = export.names(folder.trim_end_matches('/'), ".onnx");
            names.into_iter().map(move |name| format!("{folder}{name}"))
        };
        within("onnx/").chain(within("")).collect::<Vec<_>>()
    };
    let shown = export.path.display();
    if let Some(wanted) = wanted {
        let mut found = None;
        for candidate in [wanted.to_owned(), format!("onnx/{wanted}")] {
            let is_inside = !candidate.split('/').any(|part| matches!(part, "" | "." | ".."));
            if found.is_none() && is_inside && export.find(&candidate)?.is_some_and(|path| path.is_file()) {
                found = Some(candidate);
            }
        }
        return match (found, known()) {
            (Some(found), _) => Ok(found),
            (None, known) if known.is_empty() => bail!("`{shown}` has no ONNX file"),
            (None, known) => {
                bail!("`{shown}` has no file `{wanted}`, expected one of `{}`", known.join("`, `"))
            }
        };
    }
    for candidate in CANDIDATES {
        if export.find(candidate)?.is_some() {
            return Ok(candidate.to_owned());
        }
    }
    let known = known();
    if let [only] = &known[..] {
        return Ok(only.clone());
    }
    if !known.is_empty() {
        bail!("`{shown}` has several ONNX files; choose one with `--file`: `{}`", known.join("`, `"));
    }
    let weights = OTHER_WEIGHTS.iter().flat_map(|ending| export.names("", ending)).next();
    match weights {
        Some(found) => {
            let place = shown.to_string();
            Err(NotExported { place, name: name.to_owned(), found }.into())
        }
        None => bail!("`{shown}` has no ONNX file, expected `{}` or `{}`", CANDIDATES[0], CANDIDATES[1]),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn full_precision_is_chosen_first() {
        let scratch = tempfile::tempdir().unwrap();
        let export = Export::open(scratch.path()).unwrap();
        let choose = |wanted| choose(&export, "m", wanted).map_err(|error| error.to_string());
        assert!(choose(None).unwrap_err().contains("has no ONNX file, expected `onnx/model.onnx`"));
        fs::write(scratch.path().join("model.safetensors"), "").unwrap();
        let error = choose(None).unwrap_err();
        assert!(error.contains("optimum-cli export onnx --model") && error.contains("infer import m-onnx"));
        fs::create_dir(scratch.path().join("onnx")).unwrap();
        fs::write(scratch.path().join("onnx/model_quantized.onnx"), "").unwrap();
        assert_eq!(choose(None).unwrap(), "onnx/model_quantized.onnx");
        fs::write(scratch.path().join("model.onnx"), "").unwrap();
        assert_eq!(choose(None).unwrap(), "model.onnx");
        assert_eq!(choose(Some("model_quantized.onnx")).unwrap(), "onnx/model_quantized.onnx");
        let error = choose(Some("../model.onnx")).unwrap_err();
        assert!(error.ends_with("expected one of `onnx/model_quantized.onnx`, `model.onnx`"), "{error}");
    }
}
