//! Command-line arguments of `infer bench`.

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
  infer bench --model phi3 --dummy                       the same on random weights, to size this machine before a download
  infer bench --model qwen2.5-0.5b --task generate -r 5  prefill and decode, medians of five repeats
  infer bench --component moderate --dataset posts.jsonl speed and accuracy
  infer bench --target http://10.0.0.7:8080 --rate 200 --slo-ms 50
                                                         a server under 200 requests/s, and the share answered in 50 ms
  infer bench --model toxic-bilstm -o json > before.json; …; infer bench --model toxic-bilstm \\
      --baseline before.json --fail-if 'p99_ms>+10%' --fail-if 'inferences_per_second<-5%'
                                                         exits with 1 on a regression

A dataset has one JSON object per line, whose label may be left out:
  moderate  {\"text\": \"…\", \"label\": true}, or with \"category\": \"hate\"
  tensor    {\"text\": \"…\", \"label\": \"spam\"}, or {\"text\": \"…\", \"category\": \"spam\", \"label\": true}
  classify  {\"image\": \"a.jpg\", \"label\": \"espresso\"}
  score     {\"prompt\": \"…\", \"choices\": [\"yes\", \"no\"], \"label\": \"yes\"}
  generate  {\"prompt\": \"…\"}

Exit codes: 0 measured, 1 failed or a --fail-if is met, 2 the command line or the configuration is wrong.";

/// `infer bench`
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("subject").args(["model", "component", "dummy", "target"]).multiple(true).required(true))]
pub struct Bench {
    /// Model: a name in the configuration, a built-in model, or a GGUF file
    #[arg(long, value_name = "NAME", help_heading = "What is measured")]
    pub model: Option<String>,
    /// Component in the configuration, with its models, settings and limits
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "dummy"], help_heading = "What is measured")]
    pub component: Option<String>,
    /// Task to measure [default: the component's task; moderate for a language model, else tensor]
    #[arg(long, value_name = "TASK", help_heading = "What is measured")]
    pub task: Option<BenchTask>,
    /// `inproc`, or the URL of a running server; a URL without a path uses the task's route
    #[arg(long, value_name = "TARGET", default_value = "inproc", help_heading = "What is measured")]
    pub target: Target,
    /// Run only the model, without sandbox and HTTP
    #[arg(long, conflicts_with = "component", help_heading = "What is measured")]
    pub native: bool,
    /// Also measure a cold start: compiling the guest, loading compiled code, the first instance
    /// and inference
    #[arg(long, help_heading = "What is measured")]
    pub cold: bool,
    /// Use a Phi-3 Mini with random weights instead of the real one; it is written first if it does
    /// not exist
    #[arg(long, help_heading = "What is measured")]
    pub dummy: bool,
    /// Read requests from a JSON Lines file; if it has labels, also measure accuracy
    #[arg(long, value_name = "FILE", help_heading = "What is measured")]
    pub dataset: Option<PathBuf>,
    /// Reuse of computed prompt prefixes by a language model
    #[arg(long, value_name = "WHEN", default_value = "on", help_heading = "What is measured")]
    pub prefix_cache: PrefixCache,

    /// Concurrent requests, one row for each value; with --rate, the maximum in flight
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Load")]
    #[arg(default_value = "1", default_value_if("rate", clap::builder::ArgPredicate::IsPresent, "256"))]
    pub concurrency: Vec<u32>,
    /// Duration of each row, such as `10s` or `500ms` [default: 4s, less if there are many rows]
    #[arg(short = 'z', long, value_name = "DURATION", value_parser = duration, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// Number of requests in each row, instead of a duration
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=100_000_000), help_heading = "Load")]
    pub requests: Option<u64>,
    /// Number of turns per row; rows alternate, so that noise on the machine affects them alike
    /// [default: 10, fewer for slow answers]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Load")]
    pub repeats: Option<u32>,
    /// Warm-up time of each row, not measured
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration, help_heading = "Load")]
    pub warmup: Duration,
    /// Send requests at this rate per second, at random times, without waiting for answers; latency
    /// includes time spent waiting to be sent
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Seed for texts, tokens and arrival times; equal seeds give equal inputs
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub seed: u64,

    /// Also report goodput: answers per second within this latency, in milliseconds
    #[arg(long, value_name = "MS", value_parser = positive, help_heading = "Evaluation")]
    pub slo_ms: Option<f64>,
    /// Report of an earlier run (`-o json`), for relative conditions
    #[arg(long, value_name = "FILE", help_heading = "Evaluation")]
    pub baseline: Option<PathBuf>,
    /// Exit with 1 if the condition is met, such as 'p99_ms>+10%' (relative to the baseline) or
    /// 'errors>0'; may be repeated
    #[arg(long, value_name = "CONDITION", help_heading = "Evaluation")]
    pub fail_if: Vec<Condition>,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", help_heading = "Output")]
    pub output: BenchFormat,
    /// Also write a plot of each row's latencies to an SVG file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}

/// A task to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchTask {
    /// Moderate a text, or an image with an image model
    Moderate,
    /// Classify an image
    Classify,
    /// Score a list of possible answers
    Score,
    /// Generate an answer
    Generate,
    /// Pass tensors through a model
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

/// Reuse of computed prompt prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrefixCache {
    /// As in a server: a prefix that requests share is computed once
    On,
    /// No reuse: each request computes its whole prompt
    Off,
    /// Each turn starts with an empty cache
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

/// Output format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchFormat {
    /// Tables for reading
    Table,
    /// Full report, for programs and baselines
    Json,
    /// Rows as CSV, for spreadsheets
    Csv,
    /// Markdown tables
    Md,
}

/// The target of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Models and components loaded by this process.
    Inproc,
    /// A running server.
    Server(Server),
}

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host and port.
    pub authority: String,
    /// The path in the URL; `None` if it is `/`.
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
            return Err(expected("only plain HTTP is supported; measure https behind its TLS proxy"));
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let sound = authority.parse::<http::uri::Authority>();
        if authority.contains('@') || !sound.is_ok_and(|authority| !authority.host().is_empty()) {
            return Err(expected("host and port are missing after `http://`"));
        }
        if !path.is_empty() && path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(expected("invalid path"));
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

/// Parses a rate in requests per second.
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
/// A message that names the expected format, for any other text.
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
        return Err(format!("expected more than 0 and at most one hour; found `{text}`"));
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
    fn targets_are_urls_or_names() {
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
    fn contradictory_arguments_are_rejected() {
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
    fn durations_have_units() {
        for (text, expected) in [("10s", 10_000), ("500ms", 500), ("1.5s", 1_500), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "0s", "nans", "infs", "10d", "99999m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
