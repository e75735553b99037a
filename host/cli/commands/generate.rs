//! `infer generate --model NAME PROMPT|-`: stream a language model's answer.

use std::io::{Write, stderr};
use std::time::Instant;

use infer_config::Config;
use infer_engine::{Answer, Output, Params, Request, Session, TokenUsage};
use infer_models::dummy::WARNING;
use infer_server::threads::block_on;
use serde::Serialize;
use tokio::sync::mpsc;

use super::language;
use crate::cli::{Format, Generate};

#[derive(Serialize)]
struct Report {
    model: String,
    dummy: bool,
    text: String,
    tokens: Vec<u32>,
    finish: &'static str,
    usage: TokenUsage,
    compute_ms: f64,
}

pub(super) fn run(config: &Config, arguments: &Generate, out: &mut impl Write) -> anyhow::Result<()> {
    let request = Request {
        prompt: language::prompt(&arguments.prompt)?,
        choices: None,
        params: Params {
            max_tokens: arguments.max_tokens,
            temperature: arguments.temperature,
            top_p: arguments.top_p,
            top_k: arguments.top_k,
            seed: arguments.seed,
            stop: arguments.stop.clone(),
            ..Params::default()
        },
    };
    let model = language::load(config, &arguments.model)?;
    let streamed = arguments.output.output == Format::Table;
    if streamed && model.is_dummy() {
        writeln!(out, "{WARNING}\n")?;
    }
    let answer = block_on(async {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let deadline = Instant::now() + arguments.timeout;
        let mut session = Session::default();
        let model = language::language(&model)?;
        let answering = async { Ok(model.run(&mut session, request, Some(sender), deadline).await?) };
        let printing = async {
            while let Some(part) = receiver.recv().await {
                if streamed {
                    write!(out, "{}", harmless(&part.text))?;
                    out.flush()?;
                }
            }
            anyhow::Ok(())
        };
        // A closed output also ends the computation.
        let (answer, ()) = tokio::try_join!(answering, printing)?;
        anyhow::Ok(answer)
    })??;
    let Answer { output: Output::Text { text, tokens, finish, .. }, usage, compute, .. } = answer else {
        anyhow::bail!("the model answered with scores, expected text");
    };
    match arguments.output.output {
        Format::Json => {
            let (model, dummy, finish) = (model.name().to_owned(), model.is_dummy(), finish.name());
            let compute_ms = compute.as_secs_f64() * 1e3;
            let report = Report { model, dummy, text, tokens, finish, usage, compute_ms };
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        Format::Table => {
            writeln!(out)?;
            out.flush()?;
            let TokenUsage { prompt_tokens, generated_tokens, .. } = usage;
            let seconds = compute.as_secs_f64();
            writeln!(
                stderr(),
                "\n{prompt_tokens} tokens in, {generated_tokens} out in {seconds:.2} s, ended by {}",
                finish.name()
            )?;
        }
    }
    Ok(())
}

/// Escapes a model's output for a terminal: control characters could move the cursor or overwrite
/// text.
fn harmless(text: &str) -> String {
    let spelt = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if spelt(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn control_characters_are_spelt() {
        assert_eq!(harmless("a\tb\n\u{1b}[2Jc\r\u{9b}é😀"), "a\tb\n\\u{1b}[2Jc\\u{d}\\u{9b}é😀");
    }
}
