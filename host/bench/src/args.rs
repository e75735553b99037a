//! What can be typed after `infer bench`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::baseline::Condition;

const EXAMPLES: &str = "\
Examples:
  infer bench --model efficientnet-lite0                 the model natively and sandboxed
  infer bench --model phi3 -c 1,4,16                     a policy of 300 tokens, posts of 40, judged from logits
  infer bench --model phi3 --dummy                       the same on random weights, to size this box before a download
  infer bench --model qwen2.5-0.5b --task generate -r 5  prefill and decode, medians of five repeats
  infer bench --component moderate --dataset posts.jsonl how fast, and how right
  infer bench --target http://10.0.0.7:8080 --rate 200 --slo-ms 50
                                                         a server under 200 requests a second, and how many made it in 50 ms
  infer bench --model toxic-bilstm -o json > before.json; …; infer bench --model toxic-bilstm \\
      --baseline before.json --fail-if 'p99_ms>+10%' --fail-if 'inferences_per_second<-5%'
                                                         exit 1 when it became slower

A dataset has one JSON object a line: {\"text\": \"…\", \"label\": true} for moderate, {\"image\": \"a.jpg\", \"label\": \"espresso\"} for
classify, {\"prompt\": \"…\", \"choices\": [\"yes\", \"no\"], \"label\": \"yes\"} for score, {\"prompt\": \"…\"} for generate. Labels may be left out.

Exit codes: 0 measured, 1 failed or a --fail-if is met, 2 the command line or the configuration is wrong.";

/// `infer bench`
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("subject").args(["model", "component", "dummy", "target"]).multiple(true).required(true))]
pub struct Bench {
    /// A model of the configuration, a built-in one, or a GGUF file
    #[arg(long, value_name = "NAME", help_heading = "What is measured")]
    pub model: Option<String>,
    /// A component of the configuration, with its own models, settings and limits
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "dummy"], help_heading = "What is measured")]
    pub component: Option<String>,
    /// What is asked [default: what the component answers; moderate for a language model, else
    /// tensor]
    #[arg(long, value_name = "TASK", help_heading = "What is measured")]
    pub task: Option<BenchTask>,
    /// `inproc`, or the URL of a running server; without a path in it the task's own is asked
    #[arg(long, value_name = "TARGET", default_value = "inproc", help_heading = "What is measured")]
    pub target: Target,
    /// Only the model itself: no sandbox, no HTTP
    #[arg(long, conflicts_with = "component", help_heading = "What is measured")]
    pub native: bool,
    /// Also what a start costs: compiling the guest, reading it compiled, the first instance and
    /// inference
    #[arg(long, help_heading = "What is measured")]
    pub cold: bool,
    /// A Phi-3 Mini of random weights in place of the real one, written first where it is missing
    #[arg(long, help_heading = "What is measured")]
    pub dummy: bool,
    /// Requests from a file of JSON lines; with labels in it, also how right the answers are
    #[arg(long, value_name = "FILE", help_heading = "What is measured")]
    pub dataset: Option<PathBuf>,
    /// Whether a language model may find beginnings of prompts that it has computed before
    #[arg(long, value_name = "WHEN", default_value = "on", help_heading = "What is measured")]
    pub prefix_cache: PrefixCache,

    /// Requests under way at once, one row for each; with --rate the most that may be under way
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Load")]
    #[arg(default_value = "1", default_value_if("rate", clap::builder::ArgPredicate::IsPresent, "256"))]
    pub concurrency: Vec<u32>,
    /// How long each row is measured, such as `10s` or `500ms` [default: 4s, less where there are
    /// many rows]
    #[arg(short = 'z', long, value_name = "DURATION", value_parser = duration, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// How many requests each row has, in place of a duration
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=100_000_000), help_heading = "Load")]
    pub requests: Option<u64>,
    /// Turns that each row is split into; rows alternate, so that a noisy machine disturbs them
    /// alike [default: 10, fewer where an answer takes long]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Load")]
    pub repeats: Option<u32>,
    /// How long each row runs before anything counts
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration, help_heading = "Load")]
    pub warmup: Duration,
    /// Requests a second that arrive by chance whether or not earlier ones are answered; waiting to
    /// be sent counts as latency
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Equal seeds make equal texts, tokens and arrivals
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub seed: u64,

    /// Also count the answers that came within so many milliseconds: the goodput
    #[arg(long, value_name = "MS", value_parser = positive, help_heading = "Judging it")]
    pub slo_ms: Option<f64>,
    /// A report of an earlier run, as `-o json` prints it, that relative conditions compare with
    #[arg(long, value_name = "FILE", help_heading = "Judging it")]
    pub baseline: Option<PathBuf>,
    /// Exit with 1 where it is met, such as 'p99_ms>+10%' against the baseline or 'errors>0'; may
    /// be repeated
    #[arg(long, value_name = "CONDITION", help_heading = "Judging it")]
    pub fail_if: Vec<Condition>,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", help_heading = "Output")]
    pub output: BenchFormat,
    /// Also draw the latencies of each row into an SVG file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchTask {
    /// Judge a text, or an image where the model is for images
    Moderate,
    /// Name what an image shows
    Classify,
    /// Tell how likely each of some answers is
    Score,
    /// Write an answer
    Generate,
    /// Tensors through a model and back
    Tensor,
}

impl fmt::Display for BenchTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BenchTask::Moderate => "moderate",
            BenchTask::Classify => "classify",
            BenchTask::Score => "score",
            BenchTask::Generate => "generate",
            BenchTask::Tensor => "tensor",
        })
    }
}

/// Whether beginnings of prompts are found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrefixCache {
    /// As a server has it: what all requests begin with is computed once
    On,
    /// Never: each request computes all of its prompt
    Off,
    /// Each turn begins with nothing computed
    Cold,
}

impl fmt::Display for PrefixCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PrefixCache::On => "on",
            PrefixCache::Off => "off",
            PrefixCache::Cold => "cold",
        })
    }
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchFormat {
    /// For people
    Table,
    /// Everything, for programs and baselines
    Json,
    /// The rows, for spreadsheets
    Csv,
    /// Tables in Markdown
    Md,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To what this process loads.
    Inproc,
    /// To a running server.
    Server(Server),
}

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host and port.
    pub authority: String,
    /// The path that was typed; none where it was `/`.
    pub path: Option<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "inproc" {
            return Ok(Target::Inproc);
        }
        let expected = |why: &str| {
            format!("expected `inproc` or a URL such as `http://127.0.0.1:8080`, found `{text}`: {why}")
        };
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(expected("only plain HTTP is measured; for https measure behind what ends TLS"));
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let sound = authority.parse::<http::uri::Authority>();
        if authority.contains('@') || !sound.is_ok_and(|authority| !authority.host().is_empty()) {
            return Err(expected("there is no host and port after `http://`"));
        }
        if !path.is_empty() && path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(expected("its path is no path"));
        }
        let path = Some(path.to_owned()).filter(|path| !matches!(path.as_str(), "" | "/"));
        Ok(Target::Server(Server { authority: authority.to_owned(), path }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Inproc => f.write_str("inproc"),
            Target::Server(Server { authority, path }) => {
                write!(f, "http://{authority}{}", path.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Requests a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
    rate.ok_or_else(|| format!("expected a number from 0.001 to 100000, found `{text}`"))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found `{text}`"))
}

/// Parses a duration such as `10s`, `500ms` or `2m`, up to an hour.
///
/// # Errors
///
/// What was expected, for any other text.
pub fn duration(text: &str) -> Result<Duration, String> {
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
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        bench: Bench,
    }

    fn parse(arguments: &[&str]) -> Result<Bench, String> {
        let cli = Cli::try_parse_from(["bench"].iter().chain(arguments));
        cli.map(|cli| cli.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_depend_on_what_is_typed() {
        assert_eq!(parse(&["--model", "m"]).unwrap().concurrency, [1]);
        assert_eq!(parse(&["--model", "m", "-c", "1,4,16"]).unwrap().concurrency, [1, 4, 16]);
        assert_eq!(parse(&["--model", "m", "--rate", "10"]).unwrap().concurrency, [256]);
        assert_eq!(parse(&["--model", "m", "--rate", "10", "-c", "4"]).unwrap().concurrency, [4]);
        assert_eq!(parse(&["--dummy"]).unwrap().model, None);
    }

    #[test]
    fn targets() {
        let server = |authority: &str, path: Option<&str>| {
            let (authority, path) = (authority.to_owned(), path.map(str::to_owned));
            Ok(Target::Server(Server { authority, path }))
        };
        assert_eq!("inproc".parse(), Ok(Target::Inproc));
        assert_eq!("http://a:80".parse(), server("a:80", None));
        assert_eq!("http://a:80/".parse(), server("a:80", None));
        assert_eq!("http://[::1]:80/b?c=1".parse(), server("[::1]:80", Some("/b?c=1")));
        for text in
            ["", "a:80", "https://a", "http://", "http:///b", "http://a b", "http://u@a", "http://a/\u{1}"]
        {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let cases: [(&[&str], &str); 7] = [
            (&[], "required"),
            (&["--model", "m", "--component", "c"], "cannot be used with"),
            (&["--model", "m", "-n", "5", "-z", "5s"], "cannot be used with"),
            (&["--model", "m", "--rate", "0"], "expected a number from 0.001"),
            (&["--model", "m", "--slo-ms", "nan"], "expected a number above 0"),
            (&["--model", "m", "-c", "0"], "0 is not in 1..=1024"),
            (&["--model", "m", "--fail-if", "p99_ms"], "expected"),
        ];
        for (arguments, words) in cases {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
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
