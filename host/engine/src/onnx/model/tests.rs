//! Queue, batches and deadlines, on a session that the test controls.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::backend::Port;
use crate::card::{Axis, Format, InputSpec, OutputSpec, Task};
use crate::dtype::DType;

/// The session panics on a call that contains this value.
const PANICS: f32 = 13.0;
/// The session fails on a call that contains this value.
const FAILS: f32 = 7.0;

/// Returns its input, (N, K) of f32, when the test permits it.
struct Gated {
    ports: Vec<Port>,
    began: UnboundedSender<Vec<f32>>,
    permits: Receiver<()>,
}

impl Session for Gated {
    fn inputs(&self) -> &[Port] {
        &self.ports[..1]
    }

    fn outputs(&self) -> &[Port] {
        &self.ports[1..]
    }

    fn run(&mut self, inputs: &[Tensor], _: Instant) -> Result<Vec<Tensor>, BackendError> {
        let values = inputs[0].to_vec::<f32>().unwrap();
        // The test may have ended; then all calls pass.
        let _ = self.began.send(values.clone());
        let _ = self.permits.recv();
        assert!(!values.contains(&PANICS), "unlucky");
        if values.contains(&FAILS) {
            return Err(BackendError::Failed("not this one".to_owned()));
        }
        Ok(inputs.to_vec())
    }
}

/// A model on one gated session, and the test's end of its channels.
struct Bench {
    model: OnnxModel,
    /// Locked only because running calls borrow the bench as well.
    began: Mutex<UnboundedReceiver<Vec<f32>>>,
    permits: Sender<()>,
}

impl Bench {
    fn new(queue_capacity: usize, max_batch: usize) -> Self {
        let shape = vec![Axis::varying("N"), Axis::varying("K")];
        let port = |name: &str| Port {
            name: name.to_owned(),
            dtypes: &[DType::F32],
            declared: "f32".to_owned(),
            shape: Some(shape.clone()),
        };
        let (started, began) = unbounded_channel();
        let (permits, gate) = channel();
        let session = Gated { ports: vec![port("x"), port("y")], began: started, permits: gate };
        let capacity = Capacity { sessions: 1, queue_capacity, max_batch, ..Capacity::of(Format::Onnx) };
        let model = OnnxModel::start("gated", &card(&shape), &capacity, vec![Box::new(session)], &[]);
        let model = model.unwrap();
        // The test's thread opens the gate, so it must not compute itself.
        model.shared.pace.record(Duration::from_secs(3_600), 1);
        Bench { model, began: Mutex::new(began), permits }
    }

    /// Lets the next call of the session finish.
    fn permit(&self) {
        self.permits.send(()).unwrap();
    }

    /// Waits for the next call of the session and returns its values.
    async fn begun(&self) -> Vec<f32> {
        self.began.lock().await.recv().await.unwrap()
    }
}

fn card(shape: &[Axis]) -> Card {
    let (dtype, shape) = (DType::F32, shape.to_vec());
    let input = InputSpec { name: "x".to_owned(), dtype, shape: shape.clone(), layout: None, image: None };
    Card {
        name: "gated".to_owned(),
        task: Task::TextClassification,
        format: Format::Onnx,
        description: String::new(),
        license: String::new(),
        source: String::new(),
        batch_axis: Some(0),
        files: Vec::new(),
        inputs: vec![input],
        outputs: vec![OutputSpec { name: "y".to_owned(), dtype, shape }],
        heads: Vec::new(),
        text: None,
        categories: Default::default(),
        labels: Vec::new(),
        download: Default::default(),
        questions: Vec::new(),
        preset: Default::default(),
        tests: Vec::new(),
    }
}

type Running<'m> = Pin<Box<dyn Future<Output = Result<Reply, RunError>> + 'm>>;

/// Calls the model and polls once, which queues the job.
async fn call<'m>(model: &'m OnnxModel, shape: &[usize], values: &[f32]) -> Running<'m> {
    call_until(model, shape, values, Instant::now() + Duration::from_secs(60)).await
}

async fn call_until<'m>(
    model: &'m OnnxModel,
    shape: &[usize],
    values: &[f32],
    deadline: Instant,
) -> Running<'m> {
    let input = Tensor::from_slice(shape, values).unwrap();
    let mut running: Running<'m> = Box::pin(model.run(vec![("x".to_owned(), input)], deadline));
    poll_fn(|context| {
        assert!(running.as_mut().poll(context).is_pending(), "the call ended immediately");
        Poll::Ready(())
    })
    .await;
    running
}

fn values(reply: Result<Reply, RunError>) -> Vec<f32> {
    let reply = reply.unwrap();
    assert_eq!(reply.outputs.len(), 1);
    assert_eq!(reply.outputs[0].0, "y");
    reply.outputs[0].1.to_vec().unwrap()
}

#[tokio::test]
async fn full_queue_rejects_immediately() {
    let bench = Bench::new(2, 1);
    let first = call(&bench.model, &[1, 1], &[1.0]).await;
    assert_eq!(bench.begun().await, [1.0]);
    let second = call(&bench.model, &[1, 1], &[2.0]).await;
    let third = call(&bench.model, &[1, 1], &[3.0]).await;
    assert_eq!(bench.model.queue_depth(), 2);
    let input = vec![("x".to_owned(), Tensor::from_slice(&[1, 1], &[4.0f32]).unwrap())];
    let rejected = bench.model.run(input, Instant::now() + Duration::from_secs(60)).await;
    assert_eq!(rejected, Err(RunError::Busy { model: "gated".to_owned(), capacity: 2 }));
    (0..3).for_each(|_| bench.permit());
    assert_eq!(values(first.await), [1.0]);
    assert_eq!(values(second.await), [2.0]);
    assert_eq!(values(third.await), [3.0]);
    assert_eq!(bench.model.stats(), Stats { computed: 3, busy: 1, batches: 3, rows: 3, ..Stats::default() });
}

#[tokio::test]
async fn deadline_ends_call_during_computation() {
    let bench = Bench::new(2, 1);
    let running = call_until(&bench.model, &[1, 1], &[1.0], Instant::now() + Duration::from_millis(20)).await;
    assert_eq!(bench.begun().await, [1.0]);
    // The gate is still shut, so only the deadline can end the call.
    assert_eq!(running.await, Err(RunError::Deadline { model: "gated".to_owned() }));
    bench.permit();
    let next = call(&bench.model, &[1, 1], &[2.0]).await;
    bench.permit();
    assert_eq!(values(next.await), [2.0]);
}

#[tokio::test]
async fn past_deadline_is_not_queued() {
    let bench = Bench::new(2, 1);
    let input = vec![("x".to_owned(), Tensor::from_slice(&[1, 1], &[1.0f32]).unwrap())];
    let rejected = bench.model.run(input, Instant::now()).await;
    assert_eq!(rejected, Err(RunError::Deadline { model: "gated".to_owned() }));
    assert_eq!(bench.model.queue_depth(), 0);
}

#[tokio::test]
async fn job_of_departed_caller_is_skipped() {
    let bench = Bench::new(8, 1);
    let first = call(&bench.model, &[1, 1], &[1.0]).await;
    assert_eq!(bench.begun().await, [1.0]);
    let leaves = call(&bench.model, &[1, 1], &[2.0]).await;
    let late = call_until(&bench.model, &[1, 1], &[3.0], Instant::now() + Duration::from_millis(20)).await;
    let stays = call(&bench.model, &[1, 1], &[4.0]).await;
    drop(leaves);
    assert_eq!(late.await, Err(RunError::Deadline { model: "gated".to_owned() }));
    (0..2).for_each(|_| bench.permit());
    assert_eq!(values(first.await), [1.0]);
    assert_eq!(values(stays.await), [4.0]);
    assert_eq!(bench.begun().await, [4.0]);
    assert_eq!(
        bench.model.stats(),
        Stats { computed: 2, skipped: 2, batches: 2, rows: 2, ..Stats::default() }
    );
}

#[tokio::test]
async fn departed_caller_frees_queue_slot() {
    let bench = Bench::new(1, 1);
    let first = call(&bench.model, &[1, 1], &[1.0]).await;
    assert_eq!(bench.begun().await, [1.0]);
    drop(call(&bench.model, &[1, 1], &[2.0]).await);
    let third = call(&bench.model, &[1, 1], &[3.0]).await;
    (0..2).for_each(|_| bench.permit());
    assert_eq!(values(first.await), [1.0]);
    assert_eq!(values(third.await), [3.0]);
    assert_eq!(bench.model.stats().skipped, 1);
}

#[tokio::test]
async fn queued_jobs_form_batch_and_are_split() {
    let bench = Bench::new(8, 4);
    let busy = call(&bench.model, &[1, 1], &[0.0]).await;
    assert_eq!(bench.begun().await, [0.0]);
    let one = call(&bench.model, &[1, 2], &[1.0, 2.0]).await;
    let two = call(&bench.model, &[2, 2], &[3.0, 4.0, 5.0, 6.0]).await;
    let too_many = call(&bench.model, &[2, 2], &[10.0, 11.0, 12.0, 14.0]).await;
    let other_shape = call(&bench.model, &[1, 1], &[15.0]).await;
    (0..4).for_each(|_| bench.permit());
    assert_eq!(values(busy.await), [0.0]);
    let one = one.await.unwrap();
    assert_eq!((one.batch, one.outputs[0].1.shape()), (3, &[1, 2][..]));
    assert_eq!(one.outputs[0].1.to_vec::<f32>().unwrap(), [1.0, 2.0]);
    let two = two.await.unwrap();
    assert_eq!((two.batch, two.outputs[0].1.shape()), (3, &[2, 2][..]));
    assert_eq!(two.outputs[0].1.to_vec::<f32>().unwrap(), [3.0, 4.0, 5.0, 6.0]);
    assert_eq!(values(too_many.await), [10.0, 11.0, 12.0, 14.0]);
    assert_eq!(values(other_shape.await), [15.0]);
    assert_eq!(bench.begun().await, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(bench.begun().await, [10.0, 11.0, 12.0, 14.0]);
    assert_eq!(bench.begun().await, [15.0]);
    assert_eq!(bench.model.stats(), Stats { computed: 5, batches: 4, rows: 7, ..Stats::default() });
}

#[tokio::test]
async fn bad_job_fails_alone() {
    for (bad, message) in [(FAILS, "not this one"), (PANICS, "the backend panicked: unlucky")] {
        let bench = Bench::new(8, 8);
        let busy = call(&bench.model, &[1, 1], &[0.0]).await;
        assert_eq!(bench.begun().await, [0.0]);
        let before = call(&bench.model, &[1, 1], &[1.0]).await;
        let culprit = call(&bench.model, &[1, 1], &[bad]).await;
        let after = call(&bench.model, &[1, 1], &[2.0]).await;
        // The busy job, the batch that fails, and its three jobs one at a time.
        (0..5).for_each(|_| bench.permit());
        assert_eq!(values(busy.await), [0.0]);
        assert_eq!(values(before.await), [1.0]);
        let (model, message) = ("gated".to_owned(), message.to_owned());
        assert_eq!(culprit.await, Err(RunError::Failed { model, message }));
        assert_eq!(values(after.await), [2.0]);
        assert_eq!(bench.begun().await, [1.0, bad, 2.0]);
        let stats = bench.model.stats();
        assert_eq!(stats, Stats { computed: 3, failed: 1, batches: 3, rows: 3, ..Stats::default() });
    }
}

#[tokio::test]
async fn dropped_model_stops_its_workers() {
    let bench = Bench::new(8, 8);
    drop(call(&bench.model, &[1, 1], &[1.0]).await);
    bench.permit();
    let Bench { model, began, permits } = bench;
    let mut began = began.into_inner();
    let shared = Arc::downgrade(&model.shared);
    drop(model);
    assert_eq!(shared.strong_count(), 0, "a worker is still running");
    // The session was dropped with its worker, which closed its ends of both channels.
    while began.recv().await.is_some() {}
    assert!(permits.send(()).is_err());
}
