//! Every element type as input and output.

use std::fmt::Debug;

use half::{bf16, f16};
use infer_engine::{Element, RunError, Runtime, Tensor};

use crate::support::{data, load, onnxruntime, rten, run};

async fn comes_back<T: Element + PartialEq + Debug>(runtime: &Runtime, values: [T; 6]) {
    let model = load(runtime, &data(&format!("identity-{}", T::DTYPE))).unwrap();
    let input = Tensor::from_slice(&[2, 3], &values).unwrap();
    let reply = run(&model, vec![("x", input.clone())]).await.unwrap();
    assert_eq!(reply.outputs, [("y".to_owned(), input)], "{} on {}", T::DTYPE, runtime.backend());
    assert_eq!(reply.batch, 2);
}

#[tokio::test]
async fn onnxruntime_passes_every_type() {
    let Some(runtime) = onnxruntime() else { return };
    comes_back(&runtime, [0.0, -1.5, 65504.0, 6e-8, 1.0, 2.0].map(f16::from_f32)).await;
    comes_back(&runtime, [0.0, -1.5, 3e38, 1e-38, 1.0, 2.0].map(bf16::from_f32)).await;
    comes_back(&runtime, [0.0f32, -1.5, f32::MAX, f32::MIN_POSITIVE, 1.0, 2.0]).await;
    comes_back(&runtime, [0.0f64, -1.5, f64::MAX, f64::MIN_POSITIVE, 1.0, 2.0]).await;
    comes_back(&runtime, [0u8, 1, 127, 128, 254, 255]).await;
    comes_back(&runtime, [0i32, -1, i32::MIN, i32::MAX, 1, 2]).await;
    comes_back(&runtime, [0i64, -1, i64::MIN, i64::MAX, 1, 2]).await;
}

#[tokio::test]
async fn rten_passes_supported_types() {
    let runtime = rten();
    comes_back(&runtime, [0.0f32, -1.5, f32::MAX, f32::MIN_POSITIVE, 1.0, 2.0]).await;
    comes_back(&runtime, [0u8, 1, 127, 128, 254, 255]).await;
    comes_back(&runtime, [0i32, -1, i32::MIN, i32::MAX, 1, 2]).await;
    comes_back(&runtime, [0i64, -1, i64::from(i32::MIN), i64::from(i32::MAX), 1, 2]).await;
}

#[test]
fn rten_rejects_other_types_on_load() {
    for dtype in ["f16", "bf16", "f64"] {
        let error = load(&rten(), &data(&format!("identity-{dtype}"))).unwrap_err().to_string();
        let expected = format!(
            "model `m`: not supported by rten: input `x` is {dtype}, expected one of f32, i32, i64, u8; \
             install ONNX Runtime"
        );
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn rten_rejects_i64_beyond_i32() {
    let model = load(&rten(), &data("identity-i64")).unwrap();
    let input = Tensor::from_slice(&[1, 3], &[1i64, 2, 1 << 31]).unwrap();
    let error = run(&model, vec![("x", input)]).await.unwrap_err();
    let message = "input `x` contains 2147483648, but rten computes i64 tensors as i32; install ONNX Runtime"
        .to_owned();
    assert_eq!(error, RunError::Unsupported { model: "m".to_owned(), message });
}
