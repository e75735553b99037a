//! Small encoders against PyTorch, and malformed files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infer_engine::{Model, ModelOptions, Onnxruntime, Runtime, RuntimeOptions, Tensor, Weights};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, Settings, convert};

/// Files of `tests/scripts/small_encoders.py`.
fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/encoders").join(name)
}

const SETTINGS: Settings = Settings { attention_heads: 4, layer_norm_eps: 1e-5 };

fn converted(file: &File, answer: Answer) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    convert(file, SETTINGS, answer, |_| {})?.write(&mut bytes)?;
    Ok(bytes)
}

/// Loads a converted encoder as a model of two tensors, without a tokenizer.
fn model(onnx: &[u8], output: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let sha256: String = Sha256::digest(onnx).iter().map(|byte| format!("{byte:02x}")).collect();
    let card = format!(
        "name = \"small\"\ntask = \"text-classification\"\nformat = \"onnx\"\ndescription = \"\"\n\
         license = \"Apache-2.0\"\nsource = \"\"\nbatch_axis = 0\n\
         inputs = [{{ name = \"input_ids\", dtype = \"i64\", shape = [\"N\", \"L\"] }}, \
         {{ name = \"attention_mask\", dtype = \"i64\", shape = [\"N\", \"L\"] }}]\n\
         outputs = [{{ name = \"{output}\", dtype = \"f32\", shape = [\"N\", 16] }}]\n\
         files = [{{ path = \"model.onnx\", role = \"model\", bytes = {}, sha256 = \"{sha256}\" }}]\n",
        onnx.len()
    );
    fs::write(folder.path().join("card.toml"), card).unwrap();
    fs::write(folder.path().join("model.onnx"), onnx).unwrap();
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off }).unwrap();
    let weights = Weights::read(folder.path(), None).unwrap();
    Model::load(&runtime, "small", weights, &ModelOptions::default()).unwrap()
}

/// Embeddings of texts as rows of one batch, padded.
fn embeddings(model: &Model, texts: &[Vec<i64>]) -> Vec<Vec<f32>> {
    let length = texts.iter().map(Vec::len).max().unwrap();
    let rows = |value: &dyn Fn(i64) -> i64| {
        let padded = |text: &Vec<i64>| {
            let mut row: Vec<_> = text.iter().map(|token| value(*token)).collect();
            row.resize(length, 0);
            row
        };
        let values: Vec<_> = texts.iter().flat_map(padded).collect();
        Tensor::from_slice(&[texts.len(), length], &values).unwrap()
    };
    let inputs =
        vec![("input_ids".to_owned(), rows(&|token| token)), ("attention_mask".to_owned(), rows(&|_| 1))];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reply = runtime.block_on(model.run(inputs, Instant::now() + Duration::from_secs(60))).unwrap();
    reply.outputs[0].1.to_vec::<f32>().unwrap().chunks_exact(16).map(<[f32]>::to_vec).collect()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn embeddings_are_those_of_pytorch() {
    let golden: Value = serde_json::from_slice(&fs::read(small("golden.json")).unwrap()).unwrap();
    let texts: Vec<Vec<i64>> = serde_json::from_value(golden["texts"].clone()).unwrap();
    for architecture in ["bert", "mpnet"] {
        let file = File::open(small(&format!("{architecture}.safetensors"))).unwrap();
        let onnx = converted(&file, Answer::Sentence).unwrap();
        assert_eq!(onnx, converted(&file, Answer::Sentence).unwrap());
        let model = model(&onnx, "embedding");
        let expected: Vec<Vec<f32>> = serde_json::from_value(golden[architecture].clone()).unwrap();
        let alone: Vec<_> =
            texts.iter().map(|text| embeddings(&model, std::slice::from_ref(text)).remove(0)).collect();
        for (found, expected) in alone.iter().zip(&expected) {
            let difference = farthest(found, expected);
            assert!(difference < 0.02, "{architecture}: {difference}");
        }
        // Other texts in the batch do not change the scales, and padding is ignored.
        for (found, alone) in embeddings(&model, &texts).iter().zip(&alone) {
            let difference = farthest(found, alone);
            assert!(difference < 1e-4, "{architecture}: {difference}");
        }
    }
}

#[test]
fn hidden_states_are_an_output() {
    let file = File::open(small("bert.safetensors")).unwrap();
    let onnx = converted(&file, Answer::Tokens).unwrap();
    let summary = infer_engine::OnnxSummary::read(&onnx).unwrap();
    assert_eq!(summary.outputs[0].name, "last_hidden_state");
    assert_eq!(summary.outputs[0].shape.as_ref().unwrap().len(), 3);
    assert_eq!(summary.inputs.len(), 2);
    assert!(!summary.quantises_batches());
}

/// A file with `header` and the data of the small BERT.
fn file(header: &[u8], data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header).unwrap();
    file.write_all(data).unwrap();
    file
}

/// Header and data of the small BERT.
fn parts() -> (Value, Vec<u8>) {
    let bytes = fs::read(small("bert.safetensors")).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    (serde_json::from_slice(header).unwrap(), data.to_vec())
}

/// Error for the small BERT after `edit` of its header.
fn rejection(edit: impl FnOnce(&mut Value)) -> String {
    let (mut header, data) = parts();
    edit(&mut header);
    let error = converted(&file(header.to_string().as_bytes(), &data), Answer::Sentence).unwrap_err();
    format!("{error:#}")
}

const NORM: &str = "embeddings.LayerNorm.bias";
const UP: &str = "encoder.layer.1.intermediate.dense.weight";

#[test]
fn malformed_headers_are_rejected() {
    let (header, data) = parts();
    let end = data.len() as u64;
    let begin = header[NORM]["data_offsets"][0].as_u64().unwrap();
    let cases: [(&str, Value, &str); 9] = [
        ("/data_offsets", json!([end, end + 64]), "follows a gap"),
        ("/data_offsets", json!([u64::MAX - 63, u64::MAX]), "which do not fit the shape [16] of F32"),
        ("/data_offsets", json!([64, 0]), "which do not fit the shape"),
        ("/data_offsets", json!([begin - 32, begin + 32]), "overlaps the tensor before it"),
        ("/data_offsets", json!([0, 64, 128]), "invalid length 3"),
        ("/shape", json!([u64::MAX, u64::MAX]), "which do not fit the shape"),
        ("/shape", json!([-16]), "invalid value: integer `-16`"),
        ("/shape", json!(vec![1; 9]), "has 9 axes, expected at most 8"),
        ("/dtype", json!("F33"), "has the unknown type `F33`"),
    ];
    for (pointer, value, expected) in cases {
        let error = rejection(|header| *header[NORM].pointer_mut(pointer).unwrap() = value);
        assert!(error.contains(expected) && error.contains("tensor `"), "{error}");
    }
    let error = rejection(|header| header[NORM]["extra"] = json!(1));
    assert!(error.contains("unknown field `extra`"), "{error}");
    let gap = rejection(|header| drop(header.as_object_mut().unwrap().remove(NORM)));
    assert!(gap.contains("follows a gap") || gap.contains("bytes of data"), "{gap}");
}

#[test]
fn files_with_another_header_are_rejected() {
    let (header, data) = parts();
    let header = header.to_string().into_bytes();
    let whole = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let mut long = whole.clone();
    long[..8].copy_from_slice(&(whole.len() as u64).to_le_bytes());
    let cases: [(Vec<u8>, &str); 7] = [
        (huge, "its header is 1099511627776 bytes, expected at most"),
        (long, "its header is"),
        (whole[..whole.len() - 1].to_vec(), "ends at byte"),
        ([&whole[..], b"x"].concat(), "bytes of data"),
        (b"1234567".to_vec(), "it is 7 bytes, and has no header"),
        ([&2_u64.to_le_bytes()[..], b"[]"].concat(), "its header is not valid"),
        ([&2_u64.to_le_bytes()[..], b"{}"].concat(), "it has no tensor `embeddings.word_embeddings.weight`"),
    ];
    for (bytes, expected) in cases {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let error = format!("{:#}", converted(&file, Answer::Sentence).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn other_architectures_are_rejected() {
    let rename = |from: &'static str, to: &'static str| {
        move |header: &mut Value| {
            let tensor = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = tensor;
        }
    };
    let cases: [(String, String); 6] = [
        (
            rejection(rename(NORM, "embeddings.LayerNorm.beta")),
            "`embeddings.LayerNorm.beta` is not part".into(),
        ),
        (rejection(rename(NORM, "pooler.other")), format!("it has no tensor `{NORM}`")),
        (
            rejection(rename("pooler.dense.weight", "classifier.weight")),
            "`classifier.weight` is not part".into(),
        ),
        // Without this tensor the encoder has one layer, and the rest of the second is left over.
        (rejection(rename(UP, "pooler.up")), "with 1 layers".into()),
        (
            rejection(|header| header[NORM]["shape"] = json!([4, 4])),
            format!("tensor `{NORM}` has the shape [4, 4], expected [16]"),
        ),
        (
            rejection(|header| {
                header[NORM]["dtype"] = json!("I32");
            }),
            format!("tensor `{NORM}` has the type I32, expected F32, F16 or BF16"),
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(&expected), "{error}");
    }
    let (header, mut data) = parts();
    let at = header[NORM]["data_offsets"][0].as_u64().unwrap() as usize;
    data[at + 4..at + 8].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = file(header.to_string().as_bytes(), &data);
    let error = converted(&file, Answer::Sentence).unwrap_err().to_string();
    assert_eq!(error, format!("tensor `{NORM}` has NaN at 1, expected finite numbers"));
    for attention_heads in [0, 3, 32] {
        let settings = Settings { attention_heads, ..SETTINGS };
        let source = File::open(small("bert.safetensors")).unwrap();
        assert!(convert(&source, settings, Answer::Sentence, |_| {}).is_err());
    }
}
