//! External data of ONNX files on both backends: beside the model and listed in the card, or
//! rejected.

use std::path::Path;

use infer_engine::{CardError, LoadError, Model, Tensor, Weights};

use crate::proto::{diagonal, external, is, model, node, of, port, product, tensors, write};
use crate::support::{load, run, runtimes};

const SHAPE: &str = r#"["N", 4]"#;

/// Runs the model on (1, 2, 3, 4).
async fn answer(model: &Model) -> Vec<f32> {
    let x = Tensor::from_slice(&[1, 4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    run(model, vec![("x", x)]).await.unwrap().outputs[0].1.to_vec().unwrap()
}

/// A folder with a model whose weights are at `location`, times 3, and a card that lists the data
/// files.
fn folder(location: &str, data: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (file, weights) = (product(&external(location)), diagonal(3.0));
    let mut files: Vec<(&str, &str, &[u8])> = vec![("model.onnx", "model", &file)];
    files.extend(data.iter().map(|name| (*name, "data", &weights[..])));
    write(folder.path(), "", &files, &tensors(SHAPE, SHAPE));
    folder
}

#[tokio::test]
async fn listed_data_is_read_beside_model() {
    for runtime in runtimes() {
        for name in ["weights.bin", "model.onnx.data", "W"] {
            let folder = folder(name, &[name]);
            let model = load(&runtime, folder.path()).unwrap();
            assert_eq!(answer(&model).await, [3.0, 6.0, 9.0, 12.0], "{name} on {}", runtime.backend());
        }
    }
}

#[tokio::test]
async fn data_of_attribute_tensors_is_read() {
    let constant = |attribute: Vec<u8>| {
        of(
            1,
            [of(2, "W"), of(4, "Constant"), of(5, [of(1, "value"), attribute, is(20, 4)].concat())].concat(),
        )
    };
    let inner = external("w.data");
    let fields = [
        constant(of(5, &inner)),
        node("MatMul", &["x", "W"], "y"),
        port(11, "x", &["N", "4"]),
        port(12, "y", &["N", "4"]),
    ];
    let (file, weights) = (model(&fields), diagonal(5.0));
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &str, &[u8]); 2] = [("model.onnx", "model", &file), ("w.data", "data", &weights)];
    write(folder.path(), "", &files, &tensors(SHAPE, SHAPE));
    for runtime in runtimes() {
        let model = load(&runtime, folder.path()).unwrap();
        assert_eq!(answer(&model).await, [5.0, 10.0, 15.0, 20.0], "{}", runtime.backend());
    }
}

#[test]
fn unlisted_data_is_rejected_at_any_path() {
    // Tests run in the folder of this crate, where a file of this name exists.
    assert!(Path::new("Cargo.toml").is_file());
    let absolute = std::env::current_dir().unwrap().join("Cargo.toml");
    let beside = folder("weights.bin", &[]);
    std::fs::write(beside.path().join("weights.bin"), diagonal(3.0)).unwrap();
    for runtime in runtimes() {
        let error = load(&runtime, beside.path()).unwrap_err();
        assert!(matches!(&error, LoadError::Data { .. }), "{error}");
        for location in ["Cargo.toml", "../engine/Cargo.toml", "src/lib.rs", absolute.to_str().unwrap()] {
            let folder = folder(location, &["weights.bin"]);
            let message = load(&runtime, folder.path()).unwrap_err().to_string();
            let expected = format!(
                "model `m`: tensor `W`: reads external data from `{location}`, which the card does not list; it lists `weights.bin`"
            );
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

#[test]
fn changed_data_is_rejected() {
    let (one, other) =
        (folder("weights.bin", &["weights.bin"]), folder("weights.bin", &["weights.bin", "more.bin"]));
    let hash = |folder: &Path| Weights::read(folder, None).unwrap().hash().to_owned();
    assert_ne!(hash(one.path()), hash(other.path()), "data files are pinned with the model");
    std::fs::write(one.path().join("weights.bin"), diagonal(-7.0)).unwrap();
    let error = Weights::read(one.path(), None).unwrap_err();
    assert!(matches!(&error, CardError::Hash { path, .. } if path.ends_with("weights.bin")), "{error}");
    std::fs::remove_file(one.path().join("weights.bin")).unwrap();
    assert!(matches!(Weights::read(one.path(), None), Err(CardError::Missing { .. })));
}

#[cfg(unix)]
#[test]
fn linked_data_is_rejected() {
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("weights.bin"), diagonal(3.0)).unwrap();
    let folder = folder("weights.bin", &["weights.bin"]);
    let path = folder.path().join("weights.bin");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("weights.bin"), &path).unwrap();
    let error = Weights::read(folder.path(), None).unwrap_err();
    assert!(matches!(&error, CardError::Read { path, .. } if path.ends_with("weights.bin")), "{error}");
}
