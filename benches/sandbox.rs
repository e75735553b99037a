//! Cost of the sandbox: a fresh instance of a guest, called once and dropped; the host's side of
//! wasi:nn; and tensors that move into and out of a guest. Inputs are fixed.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use infer_config::{Config, Origin};
use infer_control::registry::Registry;
use infer_engine::{DType, Tensor};
use infer_sandbox::Request;
use infer_sandbox::types::{NamedTensor, Part, TensorType};

const TEXT: &str = "Thank you for fixing the article so quickly, it reads much better now.";

fn load(configuration: &str) -> Registry {
    let origin = Origin::File(Path::new(env!("CARGO_MANIFEST_DIR")).join("infer.toml"));
    let config = Config::parse(configuration, &origin).expect("the configuration has no mistakes");
    Registry::load(config).expect("the configuration is valid")
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn request() -> Request {
    Request::new(Arc::from("bench"), deadline())
}

fn moderate(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    // Without a model the guest reads its settings and the text, and returns gaps.
    let no_models = "[components.moderate]\nsource = \"builtin:moderate\"\n";
    let configurations = [("without compute", no_models), ("with the text model", infer_config::CONFIG)];
    let mut group = criterion.benchmark_group("moderate: instantiate, call, drop");
    for (name, configuration) in configurations {
        let registry = load(configuration);
        let component = &registry.components["moderate"].component;
        let input = [Part::Text(TEXT.to_owned())];
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(async || {
                component.moderate(&request(), &input).await.result.expect("the guest answers")
            });
        });
    }
    group.finish();
}

/// A model that subtracts two rows and sums the rest, natively and through a guest that passes the
/// tensors through wasi:nn: open the model, make a context, set three inputs, compute, get two
/// outputs. Rows of one number measure host calls; longer rows measure moving tensors.
fn tensors(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let registry = load(
        "[models.rows]\nsource = \"host/engine/tests/data/rows\"\nsessions = 1\n\
         [components.predict]\nsource = \"builtin:predict\"\nmodels = { rows = \"rows\" }\n",
    );
    let (model, component) = (&registry.models["rows"], &registry.components["predict"].component);
    let mut group = criterion.benchmark_group("tensors to a model of hardly any work");
    for columns in [1, 1_024, 75_000] {
        let (numbers, ids) = (vec![0; columns * 4], vec![0; 8]);
        let bytes = 2 * numbers.len() + ids.len();
        group.throughput(Throughput::Bytes(bytes as u64));
        let tensor = |dtype, shape: Vec<usize>, data: &Vec<u8>| {
            Tensor::new(dtype, shape, data.clone()).expect("a tensor")
        };
        let native = vec![
            ("a".to_owned(), tensor(DType::F32, vec![1, columns], &numbers)),
            ("b".to_owned(), tensor(DType::F32, vec![1, columns], &numbers)),
            ("ids".to_owned(), tensor(DType::I64, vec![1], &ids)),
        ];
        group.bench_function(BenchmarkId::new("native", bytes), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                model.run(black_box(native.clone()), deadline()).await.expect("the model answers")
            });
        });
        let named = |name: &str, ty, dimensions: Vec<u32>, data: &Vec<u8>| NamedTensor {
            name: name.to_owned(),
            dimensions,
            ty,
            data: data.clone(),
        };
        let guest = [
            named("a", TensorType::Fp32, vec![1, columns as u32], &numbers),
            named("b", TensorType::Fp32, vec![1, columns as u32], &numbers),
            named("ids", TensorType::I64, vec![1], &ids),
        ];
        group.bench_function(BenchmarkId::new("sandbox", bytes), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                component.predict(&request(), "rows", &guest).await.result.expect("the guest answers")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, moderate, tensors);
criterion_main!(benches);
