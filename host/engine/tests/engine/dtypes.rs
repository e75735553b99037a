//! Every element type, in and out.

use std::fmt::Debug;

use half::{bf16, f16};
use infer_engine::{Element, RunError, Runtime, Tensor};

use crate::support::{data, load, onnxruntime, rten, run};

async fn comes_back<T: Element + PartialEq + Debug>(runtime: &Runtime, values: [T; 6]) {
    let model = load(runtime, &data(&format!("identity-{}", T::DTYPE))).unwrap();
    let given = Tensor::from_slice(&[2, 3], &values).unwrap();
    let reply = run(&model, vec![("x", given.clone())]).await.unwrap();
    assert_eq!(reply.outputs, [("y".to_owned(), given)], "{} on {}", T::DTYPE, runtime.backend());
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
async fn rten_passes_what_it_computes() {
    let runtime = rten();
    comes_back(&runtime, [0.0f32, -1.5, f32::MAX, f32::MIN_POSITIVE, 1.0, 2.0]).await;
    comes_back(&runtime, [0u8, 1, 127, 128, 254, 255]).await;
    comes_back(&runtime, [0i32, -1, i32::MIN, i32::MAX, 1, 2]).await;
    comes_back(&runtime, [0i64, -1, i64::from(i32::MIN), i64::from(i32::MAX), 1, 2]).await;
}

#[test]
fn rten_refuses_other_types_as_it_loads() {
    for dtype in ["f16", "bf16", "f64"] {
        let error = load(&rten(), &data(&format!("identity-{dtype}"))).unwrap_err().to_string();
        let expected = format!(
            "model `m`: more than rten can do: input `x` is {dtype}, expected one of f32, i32, i64, u8; \
             install ONNX Runtime"
        );
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn rten_refuses_what_does_not_fit_its_integers() {
    let model = load(&rten(), &data("identity-i64")).unwrap();
    let given = Tensor::from_slice(&[1, 3], &[1i64, 2, 1 << 31]).unwrap();
    let error = run(&model, vec![("x", given)]).await.unwrap_err();
    let message =
        "input `x` holds 2147483648; i64 tensors are computed as i32 here: install ONNX Runtime".to_owned();
    assert_eq!(error, RunError::Unsupported { model: "m".to_owned(), message });
}
