use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_control::{component::card_facts, registry::Registry};
use infer_engine::{Context, DType, Model, Tensor};
use infer_sandbox::Request;
use infer_sandbox::types::{NamedTensor, Part, TensorType, Verdict};
use tokio::runtime::Runtime;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_nn::backend::{
    BackendError, BackendExecutionContext, BackendGraph, Id, NamedTensor as Named,
};
use wasmtime_wasi_nn::wit::{TensorType as Ty, WasiNnCtx, WasiNnView};
use wasmtime_wasi_nn::{Backend, ExecutionContext, Graph, GraphRegistry, Registry as GraphRegistries};

use crate::harness::{load, words};

mod moderator {
    wasmtime::component::bindgen!({ path: "wit", world: "moderator" });
}

mod predictor {
    wasmtime::component::bindgen!({ path: "wit", world: "predictor" });
}

/// The reference host: wasmtime's own wasi-nn with the same model.
struct Reference {
    engine: Engine,
    graph: Graph,
    settings: Vec<(String, String)>,
}

struct State {
    nn: WasiNnCtx,
    table: ResourceTable,
    config: WasiConfigVariables,
}

/// Adapts a model of this project to a wasmtime-wasi-nn graph.
struct Borrowed {
    model: Arc<Model>,
    runtime: Arc<Runtime>,
}

struct Running {
    context: Context,
    runtime: Arc<Runtime>,
}

/// A tensor of either host: name, dimensions, type, bytes.
type Plain = (String, Vec<u32>, String, Vec<u8>);

/// The graph that guests load as `text`.
struct OneModel(Graph);

impl GraphRegistry for OneModel {
    fn get(&self, name: &str) -> Option<&Graph> {
        (name == "text").then_some(&self.0)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Graph> {
        (name == "text").then_some(&mut self.0)
    }
}

impl BackendGraph for Borrowed {
    fn init_execution_context(&self) -> Result<ExecutionContext, BackendError> {
        let context = self.model.context(&Arc::from("reference"));
        let running = Running { context, runtime: self.runtime.clone() };
        Ok((Box::new(running) as Box<dyn BackendExecutionContext>).into())
    }
}

impl BackendExecutionContext for Running {
    fn set_input(&mut self, _: Id, _: &wasmtime_wasi_nn::Tensor) -> Result<(), BackendError> {
        unreachable!("only modules of the older interface set inputs one by one")
    }

    fn get_output(&mut self, _: Id) -> Result<wasmtime_wasi_nn::Tensor, BackendError> {
        unreachable!("only modules of the older interface get outputs one by one")
    }

    fn compute(&mut self, inputs: Option<Vec<Named>>) -> Result<Option<Vec<Named>>, BackendError> {
        let failed = |error: String| BackendError::BackendAccess(wasmtime::format_err!("{error}"));
        let mut tensors = Vec::new();
        for Named { name, tensor } in inputs.unwrap_or_default() {
            let shape = tensor.dimensions.iter().map(|&size| size as usize).collect();
            let tensor = Tensor::new(dtype(tensor.ty), shape, tensor.data)
                .map_err(|error| failed(error.to_string()))?;
            tensors.push((name, tensor));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let reply = self
            .runtime
            .block_on(self.context.run(tensors, deadline))
            .map_err(|error| failed(error.to_string()))?;
        let named = |(name, tensor): (String, Tensor)| {
            let dimensions = tensor.shape().iter().map(|&size| size as u32).collect();
            let ty = ty(tensor.dtype());
            Named { name, tensor: wasmtime_wasi_nn::Tensor { dimensions, ty, data: tensor.into_data() } }
        };
        Ok(Some(reply.outputs.into_iter().map(named).collect()))
    }
}

fn dtype(ty: Ty) -> DType {
    match ty {
        Ty::Fp16 => DType::F16,
        Ty::Fp32 => DType::F32,
        Ty::Fp64 => DType::F64,
        Ty::Bf16 => DType::BF16,
        Ty::U8 => DType::U8,
        Ty::I32 => DType::I32,
        Ty::I64 => DType::I64,
    }
}

fn ty(dtype: DType) -> Ty {
    match dtype {
        DType::F16 => Ty::Fp16,
        DType::F32 => Ty::Fp32,
        DType::F64 => Ty::Fp64,
        DType::BF16 => Ty::Bf16,
        DType::U8 => Ty::U8,
        DType::I32 => Ty::I32,
        DType::I64 => Ty::I64,
    }
}

impl Reference {
    fn new(runtime: &Arc<Runtime>, model: &Arc<Model>, settings: &[(&str, &str)]) -> Self {
        let borrowed = Borrowed { model: model.clone(), runtime: runtime.clone() };
        let graph = Graph::from(Box::new(borrowed) as Box<dyn BackendGraph>);
        let mut all = card_facts("text", model);
        all.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Reference { engine: Engine::default(), graph, settings: all }
    }

    fn store(&self) -> (Store<State>, Linker<State>) {
        let nn = WasiNnCtx::new(Vec::<Backend>::new(), GraphRegistries::from(OneModel(self.graph.clone())));
        let config: WasiConfigVariables = self.settings.iter().cloned().collect();
        let store = Store::new(&self.engine, State { nn, table: ResourceTable::new(), config });
        let mut linker = Linker::new(&self.engine);
        wasmtime_wasi_nn::wit::add_to_linker(&mut linker, |state: &mut State| {
            WasiNnView::new(&mut state.table, &mut state.nn)
        })
        .unwrap();
        wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| WasiConfig::new(&state.config))
            .unwrap();
        let mut log = linker.instance("infer:guest/log@0.1.0").unwrap();
        log.func_wrap("log", |_, _: (moderator::infer::guest::log::Level, String)| Ok(())).unwrap();
        let mut notes = linker.instance("infer:guest/notes@0.1.0").unwrap();
        notes.func_wrap("note", |_, _: (String,)| Ok(())).unwrap();
        let mut regions = linker.instance("infer:guest/regions@0.1.0").unwrap();
        regions.func_wrap("report", |_, _: (Vec<moderator::infer::guest::regions::Region>,)| Ok(())).unwrap();
        let mut events = linker.instance("infer:guest/events@0.1.0").unwrap();
        events.func_wrap("count", |_, _: (String,)| Ok(())).unwrap();
        let mut spans = linker.instance("infer:guest/spans@0.1.0").unwrap();
        spans.func_wrap("report", |_, _: (Vec<moderator::infer::guest::spans::Span>,)| Ok(())).unwrap();
        let mut explanations = linker.instance("infer:guest/explanations@0.1.0").unwrap();
        type Contributions = Vec<moderator::infer::guest::explanations::Contribution>;
        explanations.func_wrap("report-contributions", |_, _: (Contributions,)| Ok(())).unwrap();
        type Sentences = Vec<moderator::infer::guest::explanations::Sentence>;
        explanations.func_wrap("report-sentences", |_, _: (Sentences,)| Ok(())).unwrap();
        (store, linker)
    }

    fn component(&self, guest: &str) -> Component {
        Component::from_file(&self.engine, Path::new(env!("INFER_GUESTS")).join(format!("{guest}.wasm")))
            .unwrap()
    }

    fn moderate(&self, guest: &str, text: &str) -> moderator::exports::infer::guest::moderation::Verdict {
        let (mut store, linker) = self.store();
        let guest = moderator::Moderator::instantiate(&mut store, &self.component(guest), &linker).unwrap();
        let parts = [moderator::exports::infer::guest::moderation::Part::Text(text.to_owned())];
        guest.infer_guest_moderation().call_moderate(&mut store, &parts).unwrap().unwrap()
    }

    fn predict(&self, tensors: &[NamedTensor]) -> Result<Vec<Plain>, String> {
        use predictor::exports::infer::guest::prediction as theirs;
        let (mut store, linker) = self.store();
        let guest =
            predictor::Predictor::instantiate(&mut store, &self.component("predict"), &linker).unwrap();
        let convert = |tensor: &NamedTensor| theirs::NamedTensor {
            name: tensor.name.clone(),
            dimensions: tensor.dimensions.clone(),
            ty: match tensor.ty {
                TensorType::Fp16 => predictor::wasi::nn::tensor::TensorType::Fp16,
                TensorType::Fp32 => predictor::wasi::nn::tensor::TensorType::Fp32,
                TensorType::Fp64 => predictor::wasi::nn::tensor::TensorType::Fp64,
                TensorType::Bf16 => predictor::wasi::nn::tensor::TensorType::Bf16,
                TensorType::U8 => predictor::wasi::nn::tensor::TensorType::U8,
                TensorType::I32 => predictor::wasi::nn::tensor::TensorType::I32,
                TensorType::I64 => predictor::wasi::nn::tensor::TensorType::I64,
            },
            data: tensor.data.clone(),
        };
        let tensors: Vec<_> = tensors.iter().map(convert).collect();
        let answer = guest.infer_guest_prediction().call_predict(&mut store, "text", &tensors).unwrap();
        let plain = |tensor: theirs::NamedTensor| {
            (tensor.name, tensor.dimensions, format!("{:?}", tensor.ty), tensor.data)
        };
        answer.map(|outputs| outputs.into_iter().map(plain).collect()).map_err(|fault| format!("{fault:?}"))
    }
}

/// A server's models and one component, `guest`, which loads `model` as `text`.
fn ours(model: &str, guest: &str, settings: &str) -> Registry {
    let path = Path::new(env!("INFER_GUESTS")).join(format!("{guest}.wasm"));
    load(&format!(
        "[models.m]\nsource = {model:?}\nsessions = 1\n[components.guest]\nsource = {path:?}\nmodels = {{ text = \"m\" }}\n\
         settings = {{ {settings} }}\n"
    ))
}

fn request() -> Request {
    Request::new(Arc::from("conformance"), Instant::now() + Duration::from_secs(30))
}

fn moderate(registry: &Registry, runtime: &Runtime, text: &str) -> Verdict {
    let parts = [Part::Text(text.to_owned())];
    runtime.block_on(registry.components["guest"].component.moderate(&request(), &parts)).result.unwrap()
}

#[test]
fn moderator_answers_alike_on_both_hosts() {
    let runtime = Arc::new(Runtime::new().unwrap());
    let registry = ours("builtin:toxic-bilstm", "moderate", "");
    let reference = Reference::new(&runtime, &registry.models["m"], &[]);
    for text in ["You are a complete idiot.", "Thank you, it reads much better now.", "", "i will kill you"] {
        let (ours, theirs) = (moderate(&registry, &runtime, text), reference.moderate("moderate", text));
        assert_eq!(ours.flagged, theirs.flagged, "{text}");
        let scores: BTreeMap<_, _> =
            theirs.scores.iter().map(|score| (&*score.category, (score.score, score.flagged))).collect();
        let found: BTreeMap<_, _> =
            ours.scores.iter().map(|score| (&*score.category, (score.score, score.flagged))).collect();
        assert_eq!(found, scores, "{text}");
        assert_eq!(ours.gaps.len(), theirs.gaps.len(), "{text}");
    }
}

#[test]
fn every_tensor_type_survives_both_hosts() {
    let runtime = Arc::new(Runtime::new().unwrap());
    let types = [
        ("f16", TensorType::Fp16, 2),
        ("bf16", TensorType::Bf16, 2),
        ("f32", TensorType::Fp32, 4),
        ("f64", TensorType::Fp64, 8),
        ("u8", TensorType::U8, 1),
        ("i32", TensorType::I32, 4),
        ("i64", TensorType::I64, 8),
    ];
    let mut computed = 0;
    for (name, ty, size) in types {
        let registry = ours(&format!("host/engine/tests/data/identity-{name}"), "predict", "");
        let reference = Reference::new(&runtime, &registry.models["m"], &[]);
        let input = &registry.models["m"].card().inputs[0];
        let data: Vec<u8> = (0..3 * size).map(|byte| byte as u8 + 1).collect();
        let tensors = [NamedTensor { name: input.name.clone(), dimensions: vec![1, 3], ty, data }];
        let ours =
            runtime.block_on(registry.components["guest"].component.predict(&request(), "text", &tensors));
        let theirs = reference.predict(&tensors);
        // A backend may lack a type; then both hosts must fail.
        let Ok(ours) = ours.result else {
            assert!(theirs.is_err(), "{name}: {theirs:?}");
            continue;
        };
        let ours: Vec<_> = ours
            .into_iter()
            .map(|tensor| (tensor.name, tensor.dimensions, format!("{:?}", tensor.ty), tensor.data))
            .collect();
        assert_eq!(ours, theirs.unwrap(), "{name}");
        computed += 1;
    }
    assert!(computed >= 3, "{computed} types are computed");
}

/// Tests the table of docs/CONFORMANCE.md.
#[test]
fn hosts_differ_only_as_documented() {
    let runtime = Arc::new(Runtime::new().unwrap());
    let cases = [
        ("foreign-model", "NotFound", "NotFound"),
        ("load-bytes", "Security", "InvalidEncoding"),
        ("wrong-input", "InvalidArgument", "RuntimeError"),
        ("bad-tensor", "InvalidArgument", "RuntimeError"),
        ("overflow-dimensions", "InvalidArgument", "RuntimeError"),
    ];
    let document = std::fs::read_to_string(crate::harness::repository().join("docs/CONFORMANCE.md")).unwrap();
    for (attack, ours_says, theirs_says) in cases {
        let registry = ours(&words().display().to_string(), "hostile", &format!("attack = \"{attack}\""));
        let reference = Reference::new(&runtime, &registry.models["m"], &[("attack", attack)]);
        let ours = moderate(&registry, &runtime, "x");
        let theirs = reference.moderate("hostile", "x");
        assert!(
            ours.gaps[0].reason.contains(&format!("ErrorCode::{ours_says}")),
            "{attack}: {}",
            ours.gaps[0].reason
        );
        assert!(
            theirs.gaps[0].reason.contains(&format!("ErrorCode::{theirs_says}")),
            "{attack}: {}",
            theirs.gaps[0].reason
        );
        let row = document.lines().find(|line| line.contains(&format!("`{attack}`"))).expect(attack);
        assert!(row.contains(ours_says) && row.contains(theirs_says), "{row}");
    }
}
