//! The guest of `infer bench --task tensor` on wasmtime's own wasi-nn host.
//!
//! `stock-peer COMPONENT FOLDER INPUT TENSOR SHAPE`: the component is target/guests/predict.wasm,
//! the folder contains model.onnx, the tensor is a file of little-endian f32 values, the shape has
//! the form `1,3,224,224`. Each request has a fresh instance, as in `infer`. It reads commands on
//! standard input: `answer` prints the first output's values, `run CONCURRENCY SECONDS` the number
//! of inferences and their seconds, each as one line of JSON.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::error::Context as _;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, bail, ensure};
use wasmtime_wasi_nn::backend::BackendFromDir as _;
use wasmtime_wasi_nn::backend::onnx::OnnxBackend;
use wasmtime_wasi_nn::wit::{ExecutionTarget, WasiNnCtx, WasiNnView, add_to_linker};
use wasmtime_wasi_nn::{Backend, Graph, GraphRegistry, Registry};

wasmtime::component::bindgen!({ path: "../../../wit", world: "predictor" });

use exports::infer::guest::prediction::NamedTensor;
use wasi::nn::tensor::TensorType;

/// The guest's name for the model.
const MODEL: &str = "model";

/// The registry of a store: one model.
struct OneModel(Graph);

impl GraphRegistry for OneModel {
    fn get(&self, name: &str) -> Option<&Graph> {
        (name == MODEL).then_some(&self.0)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Graph> {
        (name == MODEL).then_some(&mut self.0)
    }
}

struct State {
    nn: WasiNnCtx,
    table: ResourceTable,
}

struct Peer {
    engine: Engine,
    guest: PredictorPre<State>,
    graph: Graph,
    input: String,
    dimensions: Vec<u32>,
    data: Vec<u8>,
}

impl Peer {
    /// One request, on its own instance.
    fn predict(&self) -> wasmtime::Result<Vec<NamedTensor>> {
        let nn = WasiNnCtx::new(Vec::<Backend>::new(), Registry::from(OneModel(self.graph.clone())));
        let mut store = Store::new(&self.engine, State { nn, table: ResourceTable::new() });
        let guest = self.guest.instantiate(&mut store)?;
        let input = NamedTensor {
            name: self.input.clone(),
            dimensions: self.dimensions.clone(),
            ty: TensorType::Fp32,
            data: self.data.clone(),
        };
        let answer = guest.infer_guest_prediction().call_predict(&mut store, MODEL, &[input])?;
        answer.map_err(|fault| wasmtime::format_err!("the guest answered {fault:?}"))
    }

    fn answer(&self) -> wasmtime::Result<Value> {
        let outputs = self.predict()?;
        let first = outputs.first().context("the model has no output")?;
        let values: Vec<f32> =
            first.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(json!(values))
    }

    /// Runs `concurrency` clients, each with one request at a time.
    fn run(&self, concurrency: usize, length: Duration) -> wasmtime::Result<Value> {
        let began = Instant::now();
        let client = || -> wasmtime::Result<Vec<f64>> {
            let mut latencies = Vec::new();
            while began.elapsed() < length {
                let started = Instant::now();
                self.predict()?;
                latencies.push(started.elapsed().as_secs_f64() * 1e3);
            }
            Ok(latencies)
        };
        let latencies = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..concurrency).map(|_| scope.spawn(client)).collect();
            let joined = clients
                .into_iter()
                .map(|client| client.join().map_err(|_| wasmtime::format_err!("a client panicked"))?);
            joined.collect::<wasmtime::Result<Vec<_>>>()
        })?;
        let count = latencies.iter().map(Vec::len).sum::<usize>();
        Ok(json!({ "inferences": count, "seconds": began.elapsed().as_secs_f64() }))
    }
}

fn main() -> wasmtime::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [component, folder, input, tensor, shape] = arguments.as_slice() else {
        bail!("expected COMPONENT FOLDER INPUT TENSOR SHAPE, found {} arguments", arguments.len());
    };
    // One thread per session, as in `infer` by default; all sessions of the process use this pool.
    ort::init()
        .with_global_thread_pool(ort::environment::GlobalThreadPoolOptions::default().with_intra_threads(1)?)
        .commit()?;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(32).total_core_instances(256).total_memories(32).total_tables(128);
    pool.max_memory_size(128 << 20).linear_memory_keep_resident(2 << 20);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    let component = Component::from_file(&engine, component)?;
    let mut linker = Linker::new(&engine);
    add_to_linker(&mut linker, |state: &mut State| WasiNnView::new(&mut state.table, &mut state.nn))?;
    let guest = PredictorPre::new(linker.instantiate_pre(&component)?)?;
    let graph = OnnxBackend::default().load_from_dir(Path::new(folder), ExecutionTarget::Cpu)?;
    let dimensions = shape
        .split(',')
        .map(|size| size.parse::<u32>().context("SHAPE"))
        .collect::<wasmtime::Result<Vec<_>>>()?;
    let data = std::fs::read(tensor).with_context(|| format!("`{tensor}`"))?;
    ensure!(
        data.len() as u64 == 4 * dimensions.iter().map(|&size| u64::from(size)).product::<u64>(),
        "`{tensor}`: expected f32 values of shape {shape}, found {} bytes",
        data.len()
    );
    let peer = Peer { engine, guest, graph, input: input.clone(), dimensions, data };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["answer"] => peer.answer()?,
            ["run", concurrency, seconds] => {
                peer.run(concurrency.parse()?, Duration::from_secs_f64(seconds.parse()?))?
            }
            _ => bail!("expected `answer` or `run CONCURRENCY SECONDS`, found `{line}`"),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
