//! Computations that would never end.

use std::time::{Duration, Instant};

use infer_engine::{RunError, Tensor};

use crate::proto::{is, model, of, port, tensors, write};
use crate::support::{load, onnxruntime};

/// A model that adds `x` to itself 2^60 times, if `x` has a second row.
fn endless() -> Vec<u8> {
    let value = |field, name: &str, ty| {
        of(field, [of(1, name), of(2, of(1, [is(1, ty), of(2, "")].concat()))].concat())
    };
    let node = |op: &str, inputs: &[&str], outputs: &[&str], attribute: &[u8]| {
        let inputs = inputs.iter().flat_map(|input| of(1, input));
        let outputs = outputs.iter().flat_map(|output| of(2, output));
        of(1, [inputs.chain(outputs).collect(), of(4, op), attribute.to_vec()].concat())
    };
    let scalar = |name: &str, ty, bytes: &[u8]| of(5, [is(2, ty), of(8, name), of(9, bytes)].concat());
    let (int64, boolean) = (7, 9);
    let body = [
        node("Identity", &["go"], &["goes"], &[]),
        node("Add", &["sum", "zero"], &["next"], &[]),
        of(2, "body"),
        scalar("zero", 1, &0.0_f32.to_le_bytes()),
        value(11, "step", int64),
        value(11, "go", boolean),
        port(11, "sum", &["N", "4"]),
        value(12, "goes", boolean),
        port(12, "next", &["N", "4"]),
    ];
    let body = of(5, [of(1, "body"), of(6, body.concat()), is(20, 5)].concat());
    // The number of rows less one, times 2^60.
    model(&[
        node("Shape", &["x"], &["shape"], &[of(5, [of(1, "end"), is(3, 1), is(20, 2)].concat())].concat()),
        node("Sub", &["shape", "one"], &["more"], &[]),
        node("Mul", &["more", "many"], &["times"], &[]),
        node("Reshape", &["times", "none"], &["steps"], &[]),
        node("Loop", &["steps", "start", "x"], &["y"], &body),
        of(5, [is(1, 1), is(2, int64), of(8, "one"), of(9, 1_i64.to_le_bytes())].concat()),
        of(5, [is(1, 1), is(2, int64), of(8, "many"), of(9, (1_i64 << 60).to_le_bytes())].concat()),
        of(5, [is(1, 0), is(2, int64), of(8, "none"), of(9, "")].concat()),
        scalar("start", boolean, &[1]),
        port(11, "x", &["N", "4"]),
        port(12, "y", &["N", "4"]),
    ])
}

#[tokio::test]
async fn endless_computation_is_stopped_at_its_deadline() {
    let Some(runtime) = onnxruntime() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shape = r#"["N", 4]"#;
    write(folder.path(), "", &[("model.onnx", "model", &endless())], &tensors(shape, shape));
    let model = load(&runtime, folder.path()).unwrap();
    let run = async |rows: usize, deadline| {
        let x = Tensor::from_slice(&[rows, 4], &vec![1.0_f32; rows * 4]).unwrap();
        model.run(vec![("x".to_owned(), x)], deadline).await
    };
    let later = || Instant::now() + Duration::from_secs(60);
    let answer = run(1, later()).await.unwrap();
    assert_eq!(answer.outputs[0].1.to_vec::<f32>().unwrap(), [1.0; 4]);
    // The second would be computed on the caller's thread, if that took as long as the first.
    for _ in 0..2 {
        let error = run(2, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, RunError::Deadline { .. }), "{error}");
    }
    // The only session is free again.
    assert!(run(1, later()).await.is_ok());
}
