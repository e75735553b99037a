//! Jobs that are computed together, on real sessions.

use infer_engine::{RunError, Tensor};

use crate::support::{data, load, run, runtimes};

#[tokio::test]
async fn several_inputs_and_outputs_keep_their_places() {
    for runtime in runtimes() {
        let model = load(&runtime, &data("rows")).unwrap();
        assert!(model.batches());
        // Rows differ in length from job to job: only equal ones may be joined.
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
        assert!(matches!(outside, Err(RunError::Failed { .. })), "{outside:?} on {}", runtime.backend());
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
