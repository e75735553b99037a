//! Photos to tensors, in the sandbox and natively: the same code, compiled for WebAssembly and for
//! this machine. The sandbox's figure is the guest's own time without the model, and includes
//! ranking a thousand labels.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use guest_sdk::image::{DEFAULT_MAX_PIXELS, Recipe, Viewer};
use guest_sdk::settings::Settings;
use infer_config::{Config, Origin};
use infer_control::{component::card_facts, registry::Registry};
use infer_sandbox::Request;

const PHOTOS: [&str; 4] = ["coffee.jpg", "retina-large.jpg", "rocket-alpha.png", "chelsea.webp"];

fn decoding(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let config =
        Config::parse(infer_config::CONFIG, &Origin::Builtin).expect("the configuration has no mistakes");
    let registry = Registry::load(config).expect("the configuration is valid");
    let component = &registry.components["classify"].component;
    let settings = Settings::from_pairs(card_facts("image", &registry.models["efficientnet-lite0"]));
    let card = settings.card("image").expect("the model has a card");
    let recipe = Recipe::from_card(&card).expect("the model takes images");
    let mut group = criterion.benchmark_group("a photo to a tensor");
    group.sample_size(20);
    for name in PHOTOS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/photos").join(name);
        let file = std::fs::read(path).expect("the photo is in the repository");
        group.throughput(Throughput::Bytes(file.len() as u64));
        group.bench_function(BenchmarkId::new("native", name), |bencher| {
            let mut tensor = Vec::new();
            bencher.iter(|| {
                tensor.clear();
                let mut viewer = Viewer::new(&recipe, DEFAULT_MAX_PIXELS, 1);
                let mut judge = |view: &[[u8; 3]]| {
                    recipe.normalise(view, &mut tensor);
                    Ok(())
                };
                viewer.show(black_box(&file), &mut judge).expect("a photo");
            });
        });
        group.bench_function(BenchmarkId::new("sandbox", name), |bencher| {
            bencher.to_async(&runtime).iter_custom(async |times| {
                let mut guest = Duration::ZERO;
                for _ in 0..times {
                    let deadline = Instant::now() + Duration::from_secs(10);
                    let request = Request::new(Arc::from("bench"), deadline);
                    let outcome = component.classify(&request, &file, 1).await;
                    outcome.result.expect("the guest answers");
                    guest += outcome.usage.guest;
                }
                guest
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decoding);
criterion_main!(benches);
