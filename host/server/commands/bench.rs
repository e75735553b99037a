//! `infer bench --model NAME`: the model natively and through the sandbox, side by side in one run.
//!
//! Both rows submit the same tensors to the same engine queue. The sandbox row does what a guest does: a fresh instance
//! is given the tensors, hands them to wasi:nn, and gives the outputs back.

mod language;
mod random;
mod sample;
mod stats;

use std::io::{IsTerminal as _, Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use infer_engine::{Model, Tensor};
use infer_sandbox::Usage;
use infer_sandbox::types::NamedTensor;
use serde::Serialize;

use crate::app::{App, Policy};
use crate::cli::{Bench, BenchTask, Format};
use crate::config::{ComponentConfig, Config, Source};
use stats::{Row, Turn};

/// The guest's name for the model that is measured.
const MODEL: &str = "model";
/// The component that passes tensors through.
const PREDICTOR: &str = "predict";

#[derive(Serialize)]
struct Report {
    host: Host,
    model: Subject,
    rows: Vec<Row>,
    /// Median over the turns of sandbox / native, in inferences a second.
    sandbox_of_native: f64,
    /// Median over sandboxed requests of what an instance costs: made, called, dropped, without the model.
    sandbox_us: SandboxCost,
}

/// What is said of a language model.
#[derive(Serialize)]
struct LanguageReport {
    host: Host,
    model: Subject,
    prefill: Vec<language::Prefill>,
    decode: language::Decode,
    dummy: bool,
}

#[derive(Serialize)]
struct Host {
    cores: usize,
    backend: &'static str,
}

#[derive(Serialize)]
struct Subject {
    name: String,
    hash: String,
    sessions: usize,
    threads: usize,
}

#[derive(Serialize)]
struct SandboxCost {
    instantiate: f64,
    guest: f64,
    drop: f64,
}

pub(super) fn run(mut config: Config, arguments: &Bench, out: &mut impl Write) -> anyhow::Result<()> {
    if arguments.task == Some(BenchTask::Generate) {
        return run_language(&config, arguments, out);
    }
    let known: Vec<_> = config.models.keys().map(|name| format!("`{name}`")).collect();
    let chosen = config.models.remove(&arguments.model).with_context(|| {
        format!("no model `{}` in {}; expected one of {}", arguments.model, config.origin, known.join(", "))
    })?;
    let at = chosen.at.clone();
    config.models = [(arguments.model.clone(), chosen)].into();
    let predictor = ComponentConfig {
        at,
        source: Source::Builtin(PREDICTOR.to_owned()),
        route: None,
        models: [(MODEL.to_owned(), arguments.model.clone())].into(),
        settings: Default::default(),
        limits: Default::default(),
    };
    config.components = [(PREDICTOR.to_owned(), predictor)].into();
    config.sandbox.instances = config.sandbox.instances.max(arguments.concurrency);
    let app = App::load(config)?;
    let report = super::block_on(measure(&app, arguments))??;
    match arguments.output.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        Format::Table => print(&report, arguments, out)?,
    }
    Ok(())
}

/// Measure a language model's prefill and decode.
fn run_language(config: &Config, arguments: &Bench, out: &mut impl Write) -> anyhow::Result<()> {
    let model = super::language::load(config, &arguments.model)?;
    let language = super::language::language(&model)?;
    let effort = language::Effort { time: arguments.duration * 4, repeats: arguments.repeats };
    let mut random = random::Random::new(1, 0);
    let measuring = language::measure(language, &mut random, effort, say);
    let (prefill, decode) = super::block_on(measuring)??;
    say("");
    let capacity = model.capacity();
    let report = LanguageReport {
        host: Host { cores: stats::cores(), backend: language.instruction_set() },
        model: Subject {
            name: model.name().to_owned(),
            hash: model.hash().to_owned(),
            sessions: capacity.sessions,
            threads: capacity.threads,
        },
        prefill,
        decode,
        dummy: model.is_dummy(),
    };
    if arguments.output.output == Format::Json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    if report.dummy {
        writeln!(out, "{}", super::language::DUMMY)?;
    }
    let LanguageReport { host, model, prefill, decode, .. } = &report;
    writeln!(out, "{}  {} on {} cores, {} threads\n", model.name, host.backend, host.cores, model.threads)?;
    for language::Prefill { tokens, tokens_per_second, tokens_per_second_sd, repeats } in prefill {
        writeln!(
            out,
            "prefill {tokens:>4}  {tokens_per_second:>8.2} ± {tokens_per_second_sd:.2} tokens/s over {repeats}"
        )?;
    }
    let language::Decode { tokens, tokens_per_second, tokens_per_second_sd, repeats } = decode;
    writeln!(
        out,
        "decode  {tokens:>4}  {tokens_per_second:>8.2} ± {tokens_per_second_sd:.2} tokens/s over {repeats}"
    )?;
    Ok(())
}

/// What is being measured, where a person is watching.
fn say(what: &str) {
    if stderr().is_terminal() {
        let _ = write!(stderr(), "\r\x1b[K{what}");
    }
}

/// What a row sends requests through.
#[derive(Clone)]
enum Path {
    Native { model: Arc<Model>, inputs: Arc<Vec<(String, Tensor)>> },
    Sandbox { policy: Arc<Policy>, inputs: Arc<Vec<NamedTensor>> },
}

async fn measure(app: &App, arguments: &Bench) -> anyhow::Result<Report> {
    let model = app.models[&arguments.model].clone();
    let policy = app.components[PREDICTOR].clone();
    let inputs = sample::inputs(model.card())?;
    let paths = [
        Path::Sandbox { policy, inputs: Arc::new(inputs.iter().map(sample::named).collect()) },
        Path::Native { model: model.clone(), inputs: Arc::new(inputs) },
    ];
    let slice = arguments.duration / arguments.repeats;
    // Caches, frequencies and the pool's slots settle before anything counts.
    for path in &paths {
        turn(path, slice.min(Duration::from_millis(500)), arguments.concurrency).await?;
    }
    let mut turns: [Vec<Turn>; 2] = Default::default();
    for repeat in 0..arguments.repeats {
        progress(repeat, arguments.repeats);
        // Who goes first alternates, so that a drift of the machine favours neither.
        let first = repeat as usize % 2;
        for index in [first, 1 - first] {
            turns[index].push(turn(&paths[index], slice, arguments.concurrency).await?);
        }
    }
    progress(arguments.repeats, arguments.repeats);
    let [sandbox, native] = turns;
    let options = model.capacity();
    Ok(Report {
        host: Host { cores: stats::cores(), backend: app.runtime.backend() },
        model: Subject {
            name: model.name().to_owned(),
            hash: model.hash().to_owned(),
            sessions: options.sessions,
            threads: options.threads,
        },
        sandbox_of_native: stats::ratio(&sandbox, &native),
        sandbox_us: SandboxCost {
            instantiate: stats::median_us(&sandbox, |usage| usage.instantiate),
            guest: stats::median_us(&sandbox, |usage| usage.guest),
            drop: stats::median_us(&sandbox, |usage| usage.drop),
        },
        rows: vec![
            Row::new("native", arguments.concurrency, &native),
            Row::new("sandbox", arguments.concurrency, &sandbox),
        ],
    })
}

/// Keep `concurrency` requests under way for `length`.
async fn turn(path: &Path, length: Duration, concurrency: u32) -> anyhow::Result<Turn> {
    let began = Instant::now();
    let clients: Vec<_> = (0..concurrency)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move {
                let mut calls = Vec::new();
                while began.elapsed() < length {
                    let asked = Instant::now();
                    let usage = path.infer().await?;
                    calls.push((asked.elapsed(), usage));
                }
                anyhow::Ok(calls)
            })
        })
        .collect();
    let mut calls = Vec::new();
    for client in clients {
        calls.extend(client.await??);
    }
    Ok(Turn { elapsed: began.elapsed(), calls })
}

impl Path {
    async fn infer(&self) -> anyhow::Result<Usage> {
        const DEADLINE: Duration = Duration::from_secs(30);
        let deadline = Instant::now() + DEADLINE;
        match self {
            Path::Native { model, inputs } => {
                let reply = model.run(inputs.to_vec(), deadline).await?;
                let (queue, compute, batch) = (reply.queue, reply.compute, reply.batch);
                Ok(Usage { queue, compute, batch, ..Usage::default() })
            }
            Path::Sandbox { policy, inputs } => {
                let request = infer_sandbox::Request { id: "bench".into(), deadline };
                let outcome = policy.component.predict(&request, MODEL, inputs).await;
                outcome.result?;
                Ok(outcome.usage)
            }
        }
    }
}

/// A line that moves, where a person is watching.
fn progress(done: u32, of: u32) {
    if stderr().is_terminal() {
        let end = if done == of { "\r\x1b[K" } else { "" };
        let _ = write!(stderr(), "\rmeasuring: turn {} of {of}{end}", (done + 1).min(of));
    }
}

fn print(report: &Report, arguments: &Bench, out: &mut impl Write) -> std::io::Result<()> {
    let Report { host, model, rows, sandbox_of_native, sandbox_us } = report;
    writeln!(
        out,
        "{}  {} on {} cores, {} sessions × {} threads, {} requests under way",
        model.name, host.backend, host.cores, model.sessions, model.threads, arguments.concurrency
    )?;
    writeln!(
        out,
        "\n{:<9}{:>12}{:>10}{:>9}{:>9}{:>9}{:>10}{:>12}{:>7}",
        "PATH", "INF/S", "± SD", "P50 MS", "P90 MS", "P99 MS", "QUEUE MS", "COMPUTE MS", "BATCH"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:<9}{:>12.1}{:>10.1}{:>9.3}{:>9.3}{:>9.3}{:>10.3}{:>12.3}{:>7.2}",
            row.path,
            row.inferences_per_second,
            row.inferences_per_second_sd,
            row.p50_ms,
            row.p90_ms,
            row.p99_ms,
            row.queue_ms,
            row.compute_ms,
            row.batch_mean
        )?;
    }
    writeln!(
        out,
        "\nthe sandbox keeps {:.1} % of native; an instance costs {:.0} µs: made {:.0}, called {:.0}, dropped {:.0}",
        sandbox_of_native * 100.0,
        sandbox_us.instantiate + sandbox_us.guest + sandbox_us.drop,
        sandbox_us.instantiate,
        sandbox_us.guest,
        sandbox_us.drop
    )?;
    let noisy = rows.iter().find(|row| row.inferences_per_second_sd > 0.1 * row.inferences_per_second);
    if let Some(row) = noisy {
        writeln!(
            out,
            "warning: the turns of `{}` differ by more than 10 %: the machine is busy; stop what else runs, or give \
             -z more time",
            row.path
        )?;
    }
    Ok(())
}
