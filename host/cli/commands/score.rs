//! `infer score --model NAME PROMPT|- --choices a,b`: score answers without generating any.

use std::io::Write;
use std::time::Instant;

use infer_config::Config;
use infer_engine::{Answer, Output, Params, Request, Session, TokenUsage};
use infer_models::dummy::WARNING;
use infer_server::threads::block_on;
use serde::Serialize;

use super::language;
use crate::cli::{Format, Score};

#[derive(Serialize)]
struct Report {
    model: String,
    dummy: bool,
    choices: Vec<Choice>,
    usage: TokenUsage,
    compute_ms: f64,
}

#[derive(Serialize)]
struct Choice {
    choice: String,
    /// Normalised over the given choices; the sum is 1.
    probability: f64,
    /// Log probability of the whole choice, among all continuations.
    logprob: f32,
}

pub(super) fn run(config: &Config, arguments: &Score, out: &mut impl Write) -> anyhow::Result<()> {
    let request = Request {
        prompt: language::prompt(&arguments.prompt)?,
        choices: Some(arguments.choices.clone()),
        params: Params::default(),
    };
    let model = language::load(config, &arguments.model)?;
    let deadline = Instant::now() + arguments.timeout;
    let mut session = Session::default();
    let answer = block_on(language::language(&model)?.run(&mut session, request, None, deadline))??;
    let Answer { output: Output::Scores(logprobs), usage, compute, .. } = answer else {
        anyhow::bail!("the model answered with text, expected scores");
    };
    let max = logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logprobs.iter().map(|logprob| f64::from(logprob - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let choices = arguments.choices.iter().zip(&logprobs).zip(&weights);
    let choices = choices.map(|((choice, &logprob), weight)| Choice {
        choice: choice.clone(),
        probability: weight / total,
        logprob,
    });
    let report = Report {
        model: model.name().to_owned(),
        dummy: model.is_dummy(),
        choices: choices.collect(),
        usage,
        compute_ms: compute.as_secs_f64() * 1e3,
    };
    match arguments.output.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        Format::Table => print(&report, out)?,
    }
    Ok(())
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    if report.dummy {
        writeln!(out, "{WARNING}\n")?;
    }
    let TokenUsage { prompt_tokens, .. } = report.usage;
    writeln!(out, "{prompt_tokens} tokens of prompt, {:.1} ms", report.compute_ms)?;
    for Choice { choice, probability, logprob } in &report.choices {
        writeln!(out, "  {probability:.4}  {:<24}  logprob {logprob:.4}", choice.escape_debug().to_string())?;
    }
    Ok(())
}
