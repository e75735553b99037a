//! Weights that match their card, and weights that do not.

use super::*;

const MODEL: &[u8] = b"any bytes";
const LABELS: &[u8] = b"good\nbad\n";

fn card() -> String {
    format!(
        r#"
        name = "m"
        task = "text-classification"
        format = "onnx"
        description = ""
        license = "MIT"
        source = ""
        labels = "labels.txt"
        files = [
            {{ path = "labels.txt", role = "labels", bytes = {}, sha256 = "{}" }},
            {{ path = "model.onnx", role = "model", bytes = {}, sha256 = "{}" }},
        ]
        inputs = [{{ name = "x", dtype = "f32", shape = ["N"] }}]
        outputs = [{{ name = "y", dtype = "f32", shape = ["N", 2] }}]
        "#,
        LABELS.len(),
        hex(&Sha256::digest(LABELS)),
        MODEL.len(),
        hex(&Sha256::digest(MODEL)),
    )
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn rejection(files: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    let error = Weights::read(folder.path(), None).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn verified_files_are_read() {
    let card = card();
    let folder = folder(&[("card.toml", card.as_bytes()), ("model.onnx", MODEL), ("labels.txt", LABELS)]);
    let weights = Weights::read(folder.path(), None).unwrap();
    assert_eq!(weights.card().labels, ["good", "bad"]);
    assert_eq!(weights.file_by_role(Role::Model), Some(MODEL));
    assert_eq!(weights.file_by_role(Role::Tokenizer), None);
    let whole = Sha256::new_with_prefix(&card)
        .chain_update(Sha256::digest(LABELS))
        .chain_update(Sha256::digest(MODEL));
    assert_eq!(weights.hash(), hex(&whole.finalize()));

    let leaked = Box::leak(card.into_boxed_str()).as_bytes();
    let files = [("model.onnx", MODEL), ("card.toml", leaked), ("labels.txt", LABELS)];
    let embedded = Weights::embedded(Box::leak(Box::new(files)), None, None).unwrap();
    assert_eq!(embedded.hash(), weights.hash());
    assert_eq!(&embedded.into_parts().model[..], MODEL);
}

#[test]
fn changed_file_is_rejected_with_both_hashes() {
    let (expected, found) = (hex(&Sha256::digest(MODEL)), hex(&Sha256::digest(b"ANY bytes")));
    let message =
        rejection(&[("card.toml", card().as_bytes()), ("model.onnx", b"ANY bytes"), ("labels.txt", LABELS)]);
    let expected =
        format!("`model.onnx` has sha256 {found}, its card says {expected}; restore the file, or ");
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn missing_and_resized_files_are_rejected() {
    let card = card();
    let card = ("card.toml", card.as_bytes());
    assert_eq!(rejection(&[]), "cannot read `card.toml`");
    let digest = hex(&Sha256::digest(MODEL));
    let message = rejection(&[card, ("labels.txt", LABELS)]);
    assert_eq!(message, format!("`model.onnx` does not exist, expected 9 bytes with sha256 {digest}"));
    let message = rejection(&[card, ("labels.txt", LABELS), ("model.onnx", b"any")]);
    assert!(message.starts_with("`model.onnx` is 3 bytes, its card says 9; restore"), "{message}");
    let message = rejection(&[("card.toml", b"name = 1\nname = 2")]);
    assert!(message.starts_with("`card.toml`: TOML parse error at line 2, column 1\n"), "{message}");

    static FILES: &[(&str, &[u8])] = &[("model.onnx", MODEL)];
    let message = Weights::embedded(FILES, None, None).unwrap_err().to_string();
    assert_eq!(message, "`card.toml` is not among the embedded files: model.onnx");
}

#[test]
fn number_of_labels_must_equal_scores() {
    let card = card().replace("[\"N\", 2]", "[\"N\", 3]");
    let message = rejection(&[("card.toml", card.as_bytes()), ("model.onnx", MODEL), ("labels.txt", LABELS)]);
    assert_eq!(message, "`labels.txt`: found 2 labels, one per line, expected 3 as in output `y`");
}

/// Card of a language model whose file is `MODEL`.
fn language() -> String {
    format!(
        "name = \"l\"\ntask = \"text-generation\"\nformat = \"gguf\"\ndescription = \"\"\nlicense = \"MIT\"\n\
         source = \"\"\nfiles = [{{ path = \"l.gguf\", role = \"model\", bytes = {}, sha256 = \"{}\" }}]\n",
        MODEL.len(),
        hex(&Sha256::digest(MODEL)),
    )
}

#[test]
fn language_model_file_is_mapped_and_verified() {
    let card = language();
    let good = folder(&[("card.toml", card.as_bytes()), ("l.gguf", MODEL)]);
    let Parts { hash, model: bytes, .. } = Weights::read(good.path(), None).unwrap().into_parts();
    assert!(matches!(bytes, Bytes::Mapped { .. }), "{bytes:?}");
    assert_eq!(&bytes[..], MODEL);

    // The card is embedded, and the file is in a folder.
    let leaked: &'static str = Box::leak(card.clone().into_boxed_str());
    let files = Box::leak(Box::new([("card.toml", leaked.as_bytes())]));
    let beside = Weights::embedded(files, Some(good.path()), None).unwrap();
    assert_eq!(beside.hash(), hash);
    let message = Weights::embedded(files, None, None).unwrap_err().to_string();
    assert_eq!(message, "`l.gguf` is not among the embedded files: card.toml");

    let message = rejection(&[("card.toml", card.as_bytes()), ("l.gguf", b"ANY bytes")]);
    assert!(message.starts_with("`l.gguf` has sha256 "), "{message}");
    let message = rejection(&[("card.toml", card.as_bytes()), ("l.gguf", b"any")]);
    assert!(message.starts_with("`l.gguf` is 3 bytes, its card says 9"), "{message}");
}
