//! Cost of an instance, as distributions: creation, call, drop, memory, and first call.
//!
//! `cargo bench --bench cost` measures the Rust guests; `cargo bench --bench cost -- FILE…` also
//! measures moderators in other languages, all under the same [`LIMITS`].
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_config::{Config, Origin};
use infer_control::registry::Registry;
use infer_engine::{DType, Model, Tensor};
use infer_sandbox::types::{NamedTensor, Part, TensorType};
use infer_sandbox::{Component, ComponentOptions, Request, Usage};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const TEXT: &str = "Thank you for fixing the article so quickly, it reads much better now.";

/// Calls of the Rust guests; a tenth of that for other guests, which take longer.
const CALLS: usize = 20_000;

/// First calls, each of a component loaded for it.
const COLD: usize = 100;

/// Concurrent instances of Rust guests, and of other guests.
const LIVE: [usize; 2] = [1_000, 32];

const LIMITS: &str =
    "{ memory_bytes = 268435456, table_elements = 100000, guest_ms = 60000, compute_ms = 60000 }";

/// Rows of a computation that instances wait for, and the number of these computations.
const AHEAD: (usize, usize) = (128, 120);

fn main() {
    let runtime = Runtime::new().expect("the runtime starts");
    let files = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    // `cargo bench` runs this in the repository's root, where these folders are.
    let mut moderators = vec![("moderate (Rust)".to_owned(), "builtin:moderate".to_owned())];
    for file in files {
        let path = std::path::absolute(&file).expect("a path");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        moderators.push((name, path.display().to_string()));
    }
    println!("times in µs, p50 and p99\n");
    println!("{:<34} {:>15} {:>15} {:>15} {:>17}", "guest", "instantiate", "call", "drop", "whole sandbox");
    predict(&runtime);
    for (index, (name, source)) in moderators.iter().enumerate() {
        moderate(&runtime, name, source, if index == 0 { CALLS } else { CALLS / 10 });
    }
    println!("\n{:<34} {:>15} {:>15} {:>12}", "first call of a component", "p50", "p99", "code, KiB");
    cold(&runtime, "predict (Rust)", "builtin:predict");
    for (name, source) in &moderators {
        cold(&runtime, name, source);
    }
    println!(
        "\n{:<34} {:>9} {:>13} {:>13} {:>13}",
        "instances at once, in a model", "", "memory, MiB", "KiB for each", "RSS, MiB"
    );
    for (index, (name, source)) in moderators.iter().enumerate() {
        live(&runtime, name, source, LIVE[index.min(1)]);
    }
}

fn load(configuration: &str) -> Registry {
    let origin = Origin::File(Path::new(env!("CARGO_MANIFEST_DIR")).join("infer.toml"));
    let config = Config::parse(configuration, &origin).expect("the configuration has no mistakes");
    Registry::load(config).expect("the configuration is valid")
}

fn request() -> Request {
    Request::new(Arc::from("bench"), Instant::now() + Duration::from_secs(120))
}

/// A moderator with the text model, which has one session.
fn moderator(source: &str, instances: usize) -> Registry {
    load(&format!(
        "[server]\ninstances = {instances}\nwaiting = 65536\n[models.text]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n\
         queue_capacity = 65536\nmax_batch = {}\n[components.moderate]\nsource = {source:?}\nmodels = {{ text = \"text\" }}\n\
         limits = {LIMITS}\n",
        AHEAD.0
    ))
}

/// Measures of calls, in µs.
#[derive(Default)]
struct Calls {
    instantiate: Vec<f64>,
    call: Vec<f64>,
    drop: Vec<f64>,
    whole: Vec<f64>,
}

impl Calls {
    fn add(&mut self, usage: &Usage, took: Duration) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        self.instantiate.push(micros(usage.instantiate));
        self.call.push(micros(usage.guest));
        self.drop.push(micros(usage.drop));
        self.whole.push(micros(took.saturating_sub(usage.compute + usage.queue)));
    }

    fn print(self, name: &str) {
        let Calls { instantiate, call, drop, whole } = self;
        let [instantiate, call, drop, whole] = [instantiate, call, drop, whole].map(percentiles_text);
        println!("{name:<34} {instantiate:>15} {call:>15} {drop:>15} {whole:>17}");
    }
}

fn percentiles_text(values: Vec<f64>) -> String {
    let (p50, p99) = percentiles(values);
    format!("{p50:.1} {p99:.1}")
}

fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.99))
}

/// A request with at least nine calls of wasi:nn: opens a tiny model and a context, creates three
/// tensors, computes, and reads shape, type and elements of two outputs.
fn predict(runtime: &Runtime) {
    let registry = load(
        "[models.rows]\nsource = \"host/engine/tests/data/rows\"\nsessions = 1\n\
         [components.predict]\nsource = \"builtin:predict\"\nmodels = { rows = \"rows\" }\n",
    );
    let named = |name: &str, ty, dimensions: Vec<u32>, data: Vec<u8>| NamedTensor {
        name: name.to_owned(),
        dimensions,
        ty,
        data,
    };
    let inputs = [
        named("a", TensorType::Fp32, vec![1, 1], vec![0; 4]),
        named("b", TensorType::Fp32, vec![1, 1], vec![0; 4]),
        named("ids", TensorType::I64, vec![1], vec![0; 8]),
    ];
    let component = &registry.components["predict"].component;
    let mut calls = Calls::default();
    for index in 0..CALLS + CALLS / 10 {
        let began = Instant::now();
        let outcome = runtime.block_on(component.predict(&request(), "rows", &inputs));
        outcome.result.expect("the guest answers");
        if index >= CALLS / 10 {
            calls.add(&outcome.usage, began.elapsed());
        }
    }
    calls.print("predict (Rust), 12 wasi:nn calls");
}

fn moderate(runtime: &Runtime, name: &str, source: &str, count: usize) {
    let registry = moderator(source, 4);
    let component = &registry.components["moderate"].component;
    let parts = [Part::Text(TEXT.to_owned())];
    let mut calls = Calls::default();
    for index in 0..count + count / 10 {
        let began = Instant::now();
        let outcome = runtime.block_on(component.moderate(&request(), &parts));
        outcome.result.expect("the guest answers");
        if index >= count / 10 {
            calls.add(&outcome.usage, began.elapsed());
        }
    }
    calls.print(name);
}

/// Time from a component's bytes to the answer of its first instance, with its machine code in the
/// cache folder and without a model.
fn cold(runtime: &Runtime, name: &str, source: &str) {
    let registry = load(&format!("[components.guest]\nsource = {source:?}\nlimits = {LIMITS}\n"));
    let config = &registry.config.components["guest"];
    let bytes =
        infer_control::component::component_bytes("guest", &config.source).expect("the component is there");
    let parts = [Part::Text(TEXT.to_owned())];
    let mut times = Vec::new();
    for _ in 0..COLD {
        let options = ComponentOptions { limits: config.limits.clone(), ..ComponentOptions::default() };
        let began = Instant::now();
        let component = registry.sandbox.load("guest", &bytes, options).expect("it loads");
        first(runtime, &component, &parts);
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let code = registry
        .sandbox
        .cached_code(&bytes)
        .and_then(|path| std::fs::metadata(path).ok())
        .map_or(0, |file| file.len());
    let (p50, p99) = percentiles(times);
    println!("{name:<34} {p50:>15.0} {p99:>15.0} {:>12}", code >> 10);
}

/// A call without a model: a moderator returns gaps, a predictor a fault.
fn first(runtime: &Runtime, component: &Component, parts: &[Part]) {
    match component.world() {
        infer_sandbox::World::Predictor => {
            let outcome = runtime.block_on(component.predict(&request(), "none", &[]));
            outcome.result.expect_err("there is no model");
        }
        _ => drop(runtime.block_on(component.moderate(&request(), parts)).result),
    }
}

/// Memory that instances hold while all of them wait for the model.
fn live(runtime: &Runtime, name: &str, source: &str, instances: usize) {
    let registry = Arc::new(moderator(source, instances));
    let text = registry.models["text"].clone();
    let call = {
        let registry = registry.clone();
        move || {
            let registry = registry.clone();
            async move {
                let parts = [Part::Text(TEXT.to_owned())];
                registry.components["moderate"]
                    .component
                    .moderate(&request(), &parts)
                    .await
                    .result
                    .expect("an answer");
            }
        }
    };
    let (before, after) = runtime.block_on(async {
        // Now the model's memory has its final size, and the guest's code has run.
        ahead(&text, 2).join_all().await;
        for _ in 0..8 {
            call().await;
        }
        let work = ahead(&text, AHEAD.1);
        // The queue must exist before the first instance.
        while text.queue_depth() < AHEAD.1 / 2 {
            tokio::task::yield_now().await;
        }
        let before = Memory::now();
        let mut calls: JoinSet<_> = (0..instances).map(|_| call()).collect();
        while text.queue_depth() < instances {
            assert!(
                !calls.is_empty() && calls.try_join_next().is_none(),
                "an instance ended before all were there"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let after = Memory::now();
        work.join_all().await;
        calls.join_all().await;
        (before, after)
    });
    let grown = after.own.saturating_sub(before.own);
    let each = grown as f64 / instances as f64;
    let resident = after.resident.saturating_sub(before.resident);
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!("{name:<34} {instances:>9} {:>13.1} {each:>13.1} {:>13.1}", mib(grown), mib(resident));
}

/// Starts computations of the host's own, for instances to wait for.
fn ahead(model: &Arc<Model>, jobs: usize) -> JoinSet<()> {
    let texts = serde_json::to_vec(&vec!["a text for the model"; AHEAD.0]).expect("strings");
    (0..jobs)
        .map(|_| {
            let (model, texts) = (model.clone(), texts.clone());
            async move {
                let texts = Tensor::new(DType::U8, vec![texts.len()], texts).expect("a tensor");
                let deadline = Instant::now() + Duration::from_secs(120);
                model.run(vec![("texts".to_owned(), texts)], deadline).await.expect("an answer");
            }
        })
        .collect()
}

/// Memory of this process, in KiB.
struct Memory {
    /// Unique pages: the memory that the machine would gain without this process.
    own: u64,
    /// Resident pages, shared ones counted once per mapping: a page of a component's data counts
    /// for each of its instances.
    resident: u64,
}

impl Memory {
    fn now() -> Memory {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
        let field = |name| {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the kernel's");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Memory { own: field("Pss:"), resident: field("Rss:") }
    }
}
