//! Logits of small random models, compared with a numpy implementation in f64 and with llama.cpp.
//! tests/scripts/small_models.py wrote the values and the tolerance for each file.

use serde::Deserialize;

use super::support::{decoder, distance, file, logits};
use crate::language::sampler::argmax;

/// Additional tolerance for half-precision keys and values; the golden tolerances assume f32. Twice
/// the difference measured with F32 weights.
const KV_LARGEST: f32 = 0.004;
const KV_RMS: f32 = 0.0013;

#[derive(Deserialize)]
struct Golden {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    file: String,
    tokens: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    factors: Option<String>,
    argmax: Vec<u32>,
    last: Vec<f32>,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Tolerance {
    largest: f32,
    rms: f32,
}

#[test]
fn logits_match_independent_implementations() {
    let text = std::fs::read_to_string(file("golden.json")).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    for File { file, tokens, cases } in golden.files {
        for case in cases {
            // Long factors apply to contexts above the original one.
            let context = if case.factors.as_deref() == Some("long") { 512 } else { 256 };
            let (mut decoder, pool) = decoder(&file, context);
            let found = logits(&mut decoder, &pool, &tokens, 24);
            let top: Vec<_> = found.iter().map(|row| argmax(row)).collect();
            assert_eq!(top, case.argmax, "{file} {:?}", case.factors);
            let last = found.last().unwrap();
            let largest = distance(last, &case.last);
            let squares: f32 =
                last.iter().zip(&case.last).map(|(found, expected)| (found - expected).powi(2)).sum();
            let rms = (squares / last.len() as f32).sqrt();
            println!("{file:24} {:?} largest {largest:.5}, rms {rms:.5}", case.factors);
            let (max_largest, max_rms) = (case.tolerance.largest + KV_LARGEST, case.tolerance.rms + KV_RMS);
            assert!(largest <= max_largest && rms <= max_rms, "{file} {:?}: {largest}, {rms}", case.factors);
        }
    }
}
