//! Command-line arguments. `models` has those of the commands for model files.

mod models;
mod output;
mod train;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use infer_config::{Address, Config};
pub(crate) use models::{Dummy, Import, Pull, Rm, Verify};
pub(crate) use output::{Format, Output};
pub(crate) use train::{Calibrate, Train, Weighting};

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
    /// Configuration file [default: ./infer.toml if it exists, else the built-in configuration]
    #[arg(short = 'f', long, global = true, env = "INFER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Log filter, such as `info` or `warn,guest=debug` [default: info for serve, warn otherwise]
    #[arg(long, global = true, env = "INFER_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// Log format
    #[arg(long, global = true, env = "INFER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Run language models on a lower instruction set than this CPU's best, for comparisons; `infer
    /// check` shows the one in use
    #[arg(long, global = true, env = "INFER_INSTRUCTION_SET", value_name = "SET", hide_short_help = true,
        value_parser = PossibleValuesParser::new(infer_engine::instruction_sets()))]
    pub(crate) instruction_set: Option<String>,

    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text for reading
    Text,
    /// One JSON object per line
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the configured components over HTTP until SIGTERM or Ctrl-C, then drain
    Serve(Serve),
    /// Validate the configuration, the models' hashes and the guests, run the self-tests, and print
    /// the resolved configuration
    Check(Check),
    /// Reload the configuration of the running server without dropping a request
    Reload(Admin),
    /// Compare the running server's models with their next versions
    Diff(Diff),
    /// Promote a model's next version in infer.toml, infer.lock and the running server; all or
    /// nothing
    Promote(Turn),
    /// End the trial of a model's next version, or undo the last promotion if there is no trial
    Rollback(Turn),
    /// Compile the configured components ahead of the first start
    Compile,
    /// Predict the memory use of the configuration
    Plan(Output),
    /// Create an API key, and its section for infer.toml
    Key(Key),
    /// List the configured models and the built-in ones
    Models(Models),
    /// Write a weights folder from a Hugging Face export: an ONNX file with its tokenizer
    Import(Import),
    /// Download a model's file into the cache folder and verify it, or import a model of the hub
    Pull(Pull),
    /// List the model files in the cache folder
    List(Output),
    /// Remove model files from the cache folder
    Rm(Rm),
    /// Hash the model files in the cache folder and compare them with their cards
    Verify(Verify),
    /// Pin every configured model and component by its hash, in infer.lock beside the configuration
    Lock,
    /// Write a full-size model with random weights, to size a machine before a download
    Dummy(Dummy),
    /// Classify image files through the sandbox
    Classify(Classify),
    /// Moderate a text through the sandbox
    Moderate(Moderate),
    /// Generate an answer with a language model
    Generate(Generate),
    /// Score possible answers with a language model, without generating any
    Score(Score),
    /// Train a head for a category on the embeddings of an encoder, from labelled texts
    Train(Train),
    /// Choose thresholds of a moderator whose error rate has a guaranteed bound, from labelled
    /// texts
    Calibrate(Calibrate),
    /// Measure a model or a component: natively, through the sandbox and over HTTP, side by side
    Bench(Box<infer_bench::Bench>),
}

/// `infer serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on, instead of the configured one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<Address>,
}

/// `infer check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print the changes only: against the running server, or against another configuration file
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) diff: Option<Option<PathBuf>>,

    /// The running server's address.
    #[command(flatten)]
    pub(crate) server: Admin,
}

/// `infer diff`
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Model to compare [default: all that have a next version]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The running server's address.
    #[command(flatten)]
    pub(crate) server: Admin,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer promote` and `infer rollback`
#[derive(Debug, Args)]
pub(crate) struct Turn {
    /// Model name in infer.toml
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The running server's address.
    #[command(flatten)]
    pub(crate) server: Admin,
}

/// The running server's address.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Address of the running server's admin listener [default: `admin_listen` in the
    /// configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin: Option<Address>,
}

impl Admin {
    /// The address from the command line, or else from `config`.
    #[must_use]
    pub(crate) fn admin_address(&self, config: &Config) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Address::chosen).or(config.server.admin_listen)
    }
}

/// `infer key`
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// The subcommands of `infer key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new key, which is shown only once, and a section for infer.toml with its hash
    New {
        /// Name of the key in infer.toml and in the log
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

#[derive(Debug, Args)]
pub(crate) struct Models {
    /// List the architectures, tokenizers and weight types of GGUF files that can be loaded
    #[arg(long)]
    pub(crate) supported: bool,
    #[command(flatten)]
    pub(crate) format: Output,
}

/// `infer classify`
#[derive(Debug, Args)]
pub(crate) struct Classify {
    /// Image files: JPEG, PNG, WebP or GIF
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Number of labels to print
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: u32,
    /// Component [default: the only classifier of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer moderate`
#[derive(Debug, Args)]
pub(crate) struct Moderate {
    /// Text to moderate, or - to read it from standard input
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Image file to moderate with the text; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Vec<PathBuf>,
    /// Text model to use instead of the configured ones: a model of infer.toml, a built-in one, a
    /// folder with a card.toml, or a folder that `infer import` takes
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) text_model: Option<String>,
    /// Component [default: the only moderator of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// List the words that raise the scores
    #[arg(long)]
    pub(crate) explain: bool,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The prompt and its options.
#[derive(Debug, Args)]
pub(crate) struct PromptArguments {
    /// Prompt, or - to read it from standard input
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: String,
    /// Instructions before the prompt, as the model's system turn
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Pass only the prompt to the model, without its chat template
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `infer generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Model: a name in the configuration, a built-in model, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// The prompt.
    #[command(flatten)]
    pub(crate) prompt: PromptArguments,
    /// Maximum number of tokens to generate
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) max_tokens: usize,
    /// Sampling temperature; 0 takes the most likely token, 1 samples from the model's distribution
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f32,
    /// Sample only from the most likely tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f32,
    /// Sample only from this number of most likely tokens; 0 means all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: usize,
    /// Sampling seed; equal seeds give equal samples
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Time limit of the answer
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = infer_bench::duration)]
    pub(crate) timeout: Duration,
    /// Output format
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `infer score`
#[derive(Debug, Args)]
pub(crate) struct Score {
    /// Model: a name in the configuration, a built-in model, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// The prompt.
    #[command(flatten)]
    pub(crate) prompt: PromptArguments,
    /// Answers to score, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    pub(crate) choices: Vec<String>,
    /// Time limit of the scores
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
