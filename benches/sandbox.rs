//! What the sandbox itself costs: a fresh instance of a guest, called once and dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use infer::app::App;
use infer::config::{Config, Origin};
use infer_sandbox::Request;
use infer_sandbox::types::Part;

const TEXT: &str = "Thank you for fixing the article so quickly, it reads much better now.";

fn moderate(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    // Without a model the guest reads its settings and the text, and says what it could not judge.
    let no_models = "[components.moderate]\nsource = \"builtin:moderate\"\n";
    let configurations = [("without compute", no_models), ("with the text model", infer::builtin::CONFIG)];
    let mut group = criterion.benchmark_group("moderate: instantiate, call, drop");
    for (name, configuration) in configurations {
        let config =
            Config::parse(configuration, &Origin::Builtin).expect("the configuration has no mistakes");
        let app = App::load(config).expect("all of it loads");
        let component = &app.components["moderate"].component;
        let input = [Part::Text(TEXT.to_owned())];
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let request =
                    Request { id: Arc::from("bench"), deadline: Instant::now() + Duration::from_secs(10) };
                component.moderate(&request, &input).await.result.expect("the guest answers")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, moderate);
criterion_main!(benches);
