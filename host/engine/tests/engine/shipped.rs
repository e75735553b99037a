//! The models that ship: both backends agree, and a batch equals its rows computed alone.

use infer_engine::{Model, Tensor};

use crate::support::{load, onnxruntime, rten, run, runtimes, shipped};

/// Reproducible noise: bytes of a linear congruential generator (Knuth's MMIX constants).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let step = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(step(&seed), step).map(|state| (state >> 56) as u8).take(length).collect()
}

/// Ten of the BiLSTM's words.
fn words(seed: u64) -> Tensor {
    const WORDS: [&str; 8] = ["you", "idiot", "article", "thank", "stupid", "page", "hate", "please"];
    let words = noise(seed, 10).into_iter().map(|byte| WORDS[usize::from(byte % 8)]);
    let text = words.collect::<Vec<_>>().join(" ");
    Tensor::from_slice(&[text.len()], text.as_bytes()).unwrap()
}

/// Pixels in the input format of EfficientNet-Lite0.
fn pixels(seed: u64) -> Vec<f32> {
    noise(seed, 3 * 224 * 224).into_iter().map(|byte| (f32::from(byte) - 127.0) / 128.0).collect()
}

async fn scores(model: &Model, input: Tensor) -> Vec<f32> {
    let name =
        if model.card().takes_texts() { "text".to_owned() } else { model.card().inputs[0].name.clone() };
    let reply = run(model, vec![(&name, input)]).await.unwrap();
    reply.outputs[0].1.to_vec().unwrap()
}

fn assert_close(left: &[f32], right: &[f32], tolerance: f32, what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    let far = left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
    assert!(far <= tolerance, "{what}: {far} apart, at most {tolerance} expected");
}

/// Compares four rows in one call, and in four concurrent calls, with each row alone.
async fn batch_is_single(model: &Model, rows: [Tensor; 4], tolerance: f32) {
    let alone = alone(model, &rows).await;
    let mut shape = rows[0].shape().to_vec();
    shape[0] = rows.len();
    let data = rows.iter().flat_map(Tensor::data).copied().collect();
    let stacked = Tensor::new(rows[0].dtype(), shape, data).unwrap();
    assert_close(&scores(model, stacked).await, &alone, tolerance, "one call of four rows");

    calls_are_single(model, rows, &alone, tolerance).await;
}

async fn alone(model: &Model, rows: &[Tensor]) -> Vec<f32> {
    let mut alone = Vec::new();
    for row in rows {
        alone.extend(scores(model, row.clone()).await);
    }
    alone
}

/// Compares four concurrent calls with each row alone.
async fn calls_are_single(model: &Model, rows: [Tensor; 4], alone: &[f32], tolerance: f32) {
    let [a, b, c, d] = rows;
    let (a, b, c, d) = tokio::join!(scores(model, a), scores(model, b), scores(model, c), scores(model, d));
    assert_close(&[a, b, c, d].concat(), alone, tolerance, "four calls at once");
}

#[tokio::test]
async fn text_batch_is_single() {
    for runtime in runtimes() {
        let model = load(&runtime, &shipped("toxic-bilstm")).unwrap();
        let rows = [1, 2, 3, 4].map(words);
        let alone = alone(&model, &rows).await;
        calls_are_single(&model, rows, &alone, 1e-5).await;
    }
}

#[tokio::test]
async fn image_batch_is_single() {
    for runtime in runtimes() {
        // The second adds products in f32, in another order for several rows: by 1.2e-7, which an
        // int8 rounding behind it turns into up to 0.01.
        for (name, tolerance) in [("efficientnet-lite0-int8", 1e-5), ("image-safety-s-int8", 0.02)] {
            let model = load(&runtime, &shipped(name)).unwrap();
            let rows = [1, 2, 3, 4].map(|seed| Tensor::from_slice(&[1, 3, 224, 224], &pixels(seed)).unwrap());
            batch_is_single(&model, rows, tolerance).await;
        }
    }
}

#[tokio::test]
async fn backends_agree() {
    let Some(onnxruntime) = onnxruntime() else { return };
    let text = words(5);
    let image = Tensor::from_slice(&[1, 3, 224, 224], &pixels(5)).unwrap();
    // In int8, a different rounding changes a score; the scores of a softmax are 0 to 1.
    let cases = [
        ("toxic-bilstm", text, 1e-5),
        ("efficientnet-lite0-int8", image.clone(), 0.02),
        ("nsfwjs-mobilenet_v2-int8", image.clone(), 0.02),
        ("image-safety-s-int8", image, 0.02),
    ];
    for (name, input, tolerance) in cases {
        let one = scores(&load(&onnxruntime, &shipped(name)).unwrap(), input.clone()).await;
        let other = scores(&load(&rten(), &shipped(name)).unwrap(), input).await;
        assert_close(&one, &other, tolerance, name);
    }
}
