//! Batches on real sessions.

use infer_engine::{RunError, Tensor};

use crate::proto;
use crate::support::{data, load, run, runtimes};

#[tokio::test]
async fn inputs_and_outputs_keep_their_order() {
    for runtime in runtimes() {
        let model = load(&runtime, &data("rows")).unwrap();
        assert!(model.batches());
        // Rows differ in length between jobs: only equal ones may be joined.
        let call = |id: i64, length: usize| {
            let model = &model;
            async move {
                let row = |value: f32| Tensor::from_slice(&[1, length], &vec![value; length]).unwrap();
                let ids = Tensor::from_slice(&[1], &[id]).unwrap();
                let reply =
                    run(model, vec![("a", row(id as f32)), ("b", row(0.5)), ("ids", ids)]).await.unwrap();
                let names: Vec<_> = reply.outputs.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, ["total", "wide"]);
                let total = (id as f32 - 0.5) * length as f32;
                assert_eq!(reply.outputs[0].1.to_vec::<f32>().unwrap(), [total]);
                assert_eq!(reply.outputs[1].1.to_vec::<i64>().unwrap(), [id]);
            }
        };
        tokio::join!(call(1, 4), call(2, 4), call(3, 4), call(4, 2), call(5, 2), call(6, 4), call(7, 4));
        let stats = model.stats();
        assert_eq!((stats.computed, stats.failed, stats.rows), (7, 0, 7), "{}", runtime.backend());
    }
}

#[tokio::test]
async fn bad_row_fails_alone() {
    for runtime in runtimes() {
        let model = load(&runtime, &data("lookup")).unwrap();
        let call = |id: i64| run(&model, vec![("id", Tensor::from_slice(&[1], &[id]).unwrap())]);
        let (zero, outside, three) = tokio::join!(call(0), call(9), call(3));
        assert_eq!(zero.unwrap().outputs[0].1.to_vec::<f32>().unwrap(), [0.0, 1.0]);
        // The caller chose the id, so neither the model nor the backend has failed.
        assert!(matches!(outside, Err(RunError::Unsupported { .. })), "{outside:?} on {}", runtime.backend());
        assert_eq!(three.unwrap().outputs[0].1.to_vec::<f32>().unwrap(), [6.0, 7.0]);
    }
}

#[tokio::test]
async fn wrong_inputs_do_not_reach_the_backend() {
    for runtime in runtimes() {
        let model = load(&runtime, &data("fixed-batch")).unwrap();
        let two_rows = Tensor::from_slice(&[2, 3], &[0.0f32; 6]).unwrap();
        let error = run(&model, vec![("x", two_rows)]).await.unwrap_err();
        assert_eq!(error.to_string(), "model `m`: input `x` is f32 (2, 3), expected f32 (1, 3)");
        assert_eq!(model.stats(), infer_engine::Stats::default());
    }
}

/// A model that computes the running sum of x over the first axis, which is time.
fn running_sum(head: &str, shape: &str) -> tempfile::TempDir {
    let axis = [proto::is(2, 7), proto::of(8, "axis"), proto::of(9, [0; 8])].concat();
    let file = proto::model(&[
        proto::node("CumSum", &["x", "axis"], "y"),
        proto::of(5, axis),
        proto::port(11, "x", &["T", "4"]),
        proto::port(12, "y", &["T", "4"]),
    ]);
    let folder = tempfile::tempdir().unwrap();
    proto::write(
        folder.path(),
        head,
        &[("model.onnx", "model", &file)],
        &proto::tensors(shape, r#"["T", 4]"#),
    );
    folder
}

#[tokio::test]
async fn only_batch_axis_joins_requests() {
    for runtime in runtimes() {
        let folder = running_sum("", r#"["T", 4]"#);
        let model = load(&runtime, folder.path()).unwrap();
        let reason = model.unbatched().unwrap();
        assert!(reason.starts_with("its card has no `batch_axis = 0`"), "{reason}");
        let call = |k: f32| {
            let (model, backend) = (&model, runtime.backend());
            async move {
                let x = Tensor::from_slice(&[2, 4], &[k; 8]).unwrap();
                let reply = run(model, vec![("x", x)]).await.unwrap();
                let y = reply.outputs[0].1.to_vec::<f32>().unwrap();
                assert_eq!((y[0], y[4], reply.batch), (k, 2.0 * k, 2), "{backend}");
            }
        };
        for _ in 0..8 {
            tokio::join!(call(0.0), call(1.0), call(2.0), call(3.0), call(4.0), call(5.0), call(6.0));
        }
        assert_eq!(model.stats().batches, 56);
    }
}

#[tokio::test]
async fn oversized_inputs_are_not_queued() {
    for runtime in runtimes() {
        let folder = running_sum("", r#"[{ name = "T", max = 6 }, 4]"#);
        let model = load(&runtime, folder.path()).unwrap();
        let call = |rows: usize| {
            let x = Tensor::from_slice(&[rows, 4], &vec![1.0f32; 4 * rows]).unwrap();
            run(&model, vec![("x", x)])
        };
        assert!(call(6).await.is_ok());
        let error = call(7).await.unwrap_err();
        let expected = "model `m`: input `x`: axis 0 (`T`) is 7, expected at most 6; send less data, or raise the axis's `max` \
                        in the model's card";
        assert_eq!(error.to_string(), expected);
        assert_eq!(model.stats().computed, 1);

        let model = load(&runtime, &data("identity-f32")).unwrap();
        let x = Tensor::from_slice(&[129, 3], &[1.0f32; 3 * 129]).unwrap();
        let error = run(&model, vec![("x", x)]).await.unwrap_err();
        let expected = "model `m`: input `x`: axis 0 (`N`) is 129, expected at most 128; split the rows into several jobs";
        assert_eq!(error.to_string(), expected);
    }
}
