//! Shared by `infer generate` and `infer score`: loading one language model, and the prompt.

use std::io::{IsTerminal as _, Read as _, stdin};
use std::sync::Arc;

use anyhow::Context as _;
use infer_config::Config;
use infer_control::loader::find_model;
use infer_engine::{LanguageModel, Message, Model, Prompt, Runtime, RuntimeOptions};
use infer_models::weights;

use crate::cli::PromptArguments;

/// Loads the language model called `name`.
pub(super) fn load(config: &Config, name: &str) -> anyhow::Result<Arc<Model>> {
    let (source, options, reuse) = find_model(config, name)?;
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
    let weights = weights::load(&source, &[], reuse).with_context(|| format!("model `{name}`"))?;
    let model = Model::load(&runtime, name, weights, &options)?;
    anyhow::ensure!(
        model.is_language(),
        "model `{name}` is for {}, expected a language model",
        model.card().task
    );
    Ok(Arc::new(model))
}

/// Returns the language model in the result of `load`.
pub(super) fn language(model: &Model) -> anyhow::Result<&LanguageModel> {
    model.language().with_context(|| format!("model `{}` is not a language model", model.name()))
}

/// Builds the prompt: turns for the model's chat template, or with `--raw` the text alone.
pub(super) fn prompt(arguments: &PromptArguments) -> anyhow::Result<Prompt> {
    let text = if arguments.prompt == "-" {
        if stdin().is_terminal() {
            anyhow::bail!("`-` reads the prompt from standard input, which is a terminal; pipe a text in");
        }
        let mut text = String::new();
        stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
        text
    } else {
        arguments.prompt.clone()
    };
    if arguments.raw {
        return Ok(Prompt::Text(text));
    }
    let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let system = arguments.system.iter().map(|system| turn("system", system));
    Ok(Prompt::Messages(system.chain([turn("user", &text)]).collect()))
}
