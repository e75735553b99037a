//! Parts of a language model's request without matrix products: tokenisation and prefix lookup. The
//! model is a small one of the tests.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use infer_engine::{
    LanguageModel, Model, ModelOptions, Onnxruntime, Params, Prompt, Request, Runtime, RuntimeOptions,
    Session, Weights,
};

const PARAGRAPH: &str = "The council met on Tuesday; twelve people spoke, most of them about the bridge. It's closed \
                         until 2027, and the détour costs 35 minutes each way. \"Nobody asked us,\" said one.\n";

fn model(file: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/language").join(file);
    let runtime =
        Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off }).expect("the embedded backend");
    let weights = Weights::gguf(&path, None).expect("the file is in the repository");
    Model::load(&runtime, file, weights, &ModelOptions::default()).expect("the model loads")
}

/// Both kinds of vocabularies, on a line and on a page.
fn tokenizer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text to tokens");
    for (kind, file) in [("SentencePiece", "phi3-q4_k.gguf"), ("byte-level", "qwen2-q5_0.gguf")] {
        let model = model(file);
        let language = model.language().expect("a language model");
        for paragraphs in [1, 16] {
            let text = PARAGRAPH.repeat(paragraphs);
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(kind, text.len()), |bencher| {
                bencher.iter(|| language.tokens(black_box(&text)).expect("text"));
            });
        }
    }
    group.finish();
}

/// A prompt of which all but the last token is cached: only the lookup and the attention of one
/// token grow with its length.
fn prefixes(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let model = model("qwen2-q5_0.gguf");
    let language = model.language().expect("a language model");
    let mut group = criterion.benchmark_group("a prompt cached except for its last token");
    for tokens in [16, 128, 896] {
        let prompt: Vec<u32> = (0..tokens).map(|index| 3 + index * 7 % 250).collect();
        runtime.block_on(ask(language, &prompt));
        group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let known = ask(language, black_box(&prompt)).await;
                assert_eq!(known, prompt.len() - 1, "the prompt was not known");
            });
        });
    }
    group.finish();
}

/// Returns the number of cached tokens of `prompt`.
async fn ask(model: &LanguageModel, prompt: &[u32]) -> usize {
    let request = Request {
        prompt: Prompt::Tokens(prompt.to_vec()),
        choices: None,
        params: Params { max_tokens: 1, ..Params::default() },
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let answer = model.run(&mut Session::default(), request, None, deadline).await.expect("an answer");
    answer.usage.cached_tokens
}

criterion_group!(benches, tokenizer, prefixes);
criterion_main!(benches);
