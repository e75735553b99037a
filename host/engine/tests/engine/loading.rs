//! Cards that do not match their files, and the choice of the backend.

use infer_engine::{Onnxruntime, Runtime, RuntimeError, RuntimeOptions};

use crate::support::{data, load, onnxruntime, rten, runtimes};

/// Returns the message for `identity-f32` with a modified card.
fn load_message(runtime: &Runtime, from: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = data("identity-f32");
    let card = std::fs::read_to_string(model.join("card.toml")).unwrap();
    assert!(card.contains(from), "{card}");
    std::fs::write(folder.path().join("card.toml"), card.replace(from, to)).unwrap();
    std::fs::copy(model.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    load(runtime, folder.path()).unwrap_err().to_string()
}

#[test]
fn card_that_contradicts_file_is_rejected() {
    let cases = [
        ("name = \"x\"", "name = \"z\"", "the file has input `x`, f32 (N, 3), which the card does not list"),
        ("[\"N\", 3]", "[\"N\", 4]", "input `x` is f32 (N, 4) in the card and f32 (N, 3) in the file"),
        ("[\"N\", 3]", "[\"N\"]", "input `x` is f32 (N) in the card and f32 (N, 3) in the file"),
        ("\"f32\"", "\"u8\"", "input `x` is u8 (N, 3) in the card and f32 (N, 3) in the file"),
    ];
    for runtime in runtimes() {
        for (from, to, expected) in cases {
            let prefix = "model `m`: the card disagrees with the model's file: ";
            assert_eq!(
                load_message(&runtime, from, to),
                format!("{prefix}{expected}"),
                "{}",
                runtime.backend()
            );
        }
    }
}

#[test]
fn invalid_model_file_is_rejected() {
    use sha2::{Digest as _, Sha256};

    let folder = tempfile::tempdir().unwrap();
    let card = std::fs::read_to_string(data("identity-f32").join("card.toml")).unwrap();
    let bytes = b"not a model at all";
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let changed: Vec<_> = card
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("bytes", _)) => format!("bytes = {}", bytes.len()),
            Some(("sha256", _)) => format!("sha256 = \"{digest}\""),
            _ => line.to_owned(),
        })
        .collect();
    std::fs::write(folder.path().join("card.toml"), changed.join("\n")).unwrap();
    std::fs::write(folder.path().join("model.onnx"), bytes).unwrap();
    for runtime in runtimes() {
        let message = load(&runtime, folder.path()).unwrap_err().to_string();
        let expected = format!("model `m`: {} cannot load it: ", runtime.backend());
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn fixed_first_axis_is_not_batched() {
    for runtime in runtimes() {
        let fixed = load(&runtime, &data("fixed-batch")).unwrap();
        assert_eq!(fixed.unbatched(), Some("axis 0 of input `x` is always 1"));
        assert!(load(&runtime, &data("identity-f32")).unwrap().batches());
    }
}

#[test]
fn process_keeps_loaded_library() {
    let Some(first) = onnxruntime() else { return };
    assert!(first.describe().starts_with("ONNX Runtime"), "{}", first.describe());
    let elsewhere = Onnxruntime::Auto { search: Vec::new() };
    let again = Runtime::new(&RuntimeOptions { onnxruntime: elsewhere }).unwrap();
    assert_eq!(again.describe(), first.describe());

    let described = first.describe();
    let (_, path) = described.split_once(", ").unwrap();
    let same = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Path(path.into()) }).unwrap();
    assert_eq!(same.describe(), first.describe());

    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("libonnxruntime.so");
    std::fs::copy(path, &other).unwrap();
    let error = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Path(other) }).unwrap_err();
    assert!(matches!(error, RuntimeError::Second { .. }), "{error}");
    assert!(error.to_string().contains(&format!("has already loaded `{path}`")), "{error}");
}

#[test]
fn rten_remains_available_beside_onnxruntime() {
    let _ = onnxruntime();
    assert_eq!(rten().backend(), "rten");
}
