//! The logits of candle-transformers' quantized Phi-3 against tests/data/language/golden.json, for the small phi3 files
//! that it can load: no grouped heads and no long-RoPE factors, which it does not read. Exit code 1 where they disagree.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, ensure};
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_phi3::ModelWeights;
use serde_json::Value;

const FILES: [&str; 3] = ["phi3-f32.gguf", "phi3-q4_0-head96.gguf", "phi3-q4_k.gguf"];

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/data/language");
    let golden: Value = serde_json::from_reader(File::open(folder.join("golden.json"))?)?;
    let files = golden["files"].as_array().context("golden.json has no `files`")?;
    for name in FILES {
        let entry = files.iter().find(|entry| entry["file"] == name).context(name)?;
        let tokens: Vec<u32> = serde_json::from_value(entry["tokens"].clone())?;
        let case = &entry["cases"][0];
        let expected: Vec<f32> = serde_json::from_value(case["last"].clone())?;
        let best: Vec<usize> = serde_json::from_value(case["argmax"].clone())?;
        let mut file = File::open(folder.join(name))?;
        let content = Content::read(&mut file)?;
        let mut model = ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu)?;
        let input = Tensor::new(tokens.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
        let logits: Vec<f32> = model.forward(&input, 0)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let pairs = logits.iter().zip(&expected);
        let largest = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        let found = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).context("no logits")?;
        println!("{name:24} largest difference {largest:.5}, best token {found}");
        ensure!(Some(&found) == best.last(), "{name}: the best token differs");
        let tolerance = case["tolerance"]["largest"].as_f64().context("no tolerance")? as f32;
        ensure!(largest <= tolerance.max(0.01), "{name}: {largest} is above {tolerance}");
    }
    Ok(())
}
