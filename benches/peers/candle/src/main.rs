//! candle-transformers' quantized Phi-3 beside our own.
//!
//! Without an argument: compares its logits with tests/data/language/golden.json, for the small
//! phi3 files that it can load (without grouped heads and long-RoPE factors, which it does not
//! read); exit code 1 if they disagree. With the path of a GGUF file: tokens per second of a prompt
//! and of an answer, and the peak of resident memory, as one line of JSON.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_phi3::ModelWeights;
use serde_json::{Value, json};

const FILES: [&str; 3] = ["phi3-f32.gguf", "phi3-q4_0-head96.gguf", "phi3-q4_k.gguf"];

/// Tokens of the timed prompts and of the timed answer.
const PROMPTS: [u32; 4] = [16, 40, 128, 512];
const ANSWER: usize = 32;

fn main() -> anyhow::Result<()> {
    match std::env::args_os().nth(1) {
        Some(file) => bench(Path::new(&file)),
        None => compare(),
    }
}

fn bench(path: &Path) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let content = Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu)?;
    let mut pass = |tokens: &[u32], position: usize| -> anyhow::Result<u32> {
        let logits = model.forward(&Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?, position)?;
        Ok(logits.flatten_all()?.argmax(0)?.to_scalar()?)
    };
    let prompt = |tokens: u32| (0..tokens).map(|i| 1000 + i * 7919 % 20000).collect::<Vec<u32>>();
    pass(&prompt(128), 0)?;
    let mut prefill = Vec::new();
    for tokens in PROMPTS {
        let began = Instant::now();
        pass(&prompt(tokens), 0)?;
        let tokens_per_second = f64::from(tokens) / began.elapsed().as_secs_f64();
        prefill.push(json!({ "tokens": tokens, "tokens_per_second": tokens_per_second }));
    }
    let mut token = pass(&prompt(2), 0)?;
    let began = Instant::now();
    for position in 2..2 + ANSWER {
        token = pass(&[token], position)?;
    }
    let decode = ANSWER as f64 / began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    let decode = json!({ "tokens_per_second": decode });
    println!("{}", json!({ "prefill": prefill, "decode": decode, "rss_peak_bytes": peak * 1024 }));
    Ok(())
}

fn compare() -> anyhow::Result<()> {
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
        let found =
            (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).context("no logits")?;
        println!("{name:24} largest difference {largest:.5}, best token {found}");
        ensure!(Some(&found) == best.last(), "{name}: the best token differs");
        let tolerance = case["tolerance"]["largest"].as_f64().context("no tolerance")? as f32;
        ensure!(largest <= tolerance.max(0.01), "{name}: {largest} is above {tolerance}");
    }
    Ok(())
}
