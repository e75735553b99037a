//! The result of a run. JSON output has all fields in this order.

use serde::Serialize;

use crate::figures::{TokenRate, Verdict};
use crate::machine::Machine;
use crate::quality::Quality;
use crate::stats::{InstanceCost, Row};

/// The full report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// True if some weights are random: rates are realistic, answers are meaningless.
    pub(super) dummy: bool,
    pub(super) host: Machine,
    /// `None` if a server is measured and does not report its model.
    pub(super) model: Option<Subject>,
    pub(super) task: String,
    pub(super) target: String,
    pub(super) load: LoadFacts,
    pub(super) rows: Vec<Row>,
    /// Overhead of the sandbox, if the native and sandbox rows do the same work.
    pub(super) sandbox: Vec<SandboxCost>,
    /// Empty if the model is not a language model.
    pub(super) prefill: Vec<TokenRate>,
    /// One for each number of sessions. Empty if the model is not a language model.
    pub(super) decode: Vec<TokenRate>,
    /// Time from a post to its verdict, for language models that moderate.
    pub(super) verdict: Option<Verdict>,
    /// Present with --cold.
    pub(super) cold: Option<Cold>,
    /// Present if the dataset has labels.
    pub(super) quality: Option<Quality>,
    /// Present if the dataset has labels and a language model judged some of its examples.
    pub(super) language: Option<LanguageShare>,
    /// Peak memory of this process, including the client.
    pub(super) rss_peak_bytes: u64,
    pub(super) warnings: Vec<String>,
}

/// Share of the labelled examples that reached a language model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LanguageShare {
    /// Examples for which tokens of a language model were computed.
    pub(super) reached: u64,
    /// Examples that got an answer.
    pub(super) answers: u64,
}

/// The measured model and its runtime.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Subject {
    pub(super) name: String,
    /// SHA-256 of the card and the files.
    pub(super) hash: String,
    /// The component, if one of the configuration is measured.
    pub(super) component: Option<String>,
    /// Runtime: `onnxruntime`, `rten`, or the kernels' instruction set.
    pub(super) backend: String,
    /// Types of its weights, by bytes in descending order.
    pub(super) quantization: Option<String>,
    pub(super) sessions: Option<usize>,
    pub(super) threads: Option<usize>,
    /// Threads of a further session for single jobs, if there is one.
    pub(super) solo_threads: Option<usize>,
    /// Time from the start of the run until everything was loaded.
    pub(super) load_ms: Option<f64>,
}

/// Parameters of the load.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LoadFacts {
    /// Requests per second in an open loop; `None` in a closed loop.
    pub(super) rate: Option<f64>,
    /// Duration of each row.
    pub(super) seconds: Option<f64>,
    /// Requests of each row.
    pub(super) requests: Option<u64>,
    pub(super) repeats: u32,
    pub(super) seed: u64,
    pub(super) slo_ms: Option<f64>,
    pub(super) prefix_cache: String,
    pub(super) dataset: Option<String>,
}

/// Sandbox compared with native, at one concurrency.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SandboxCost {
    pub(super) concurrency: u32,
    /// Median over the turns of sandbox / native, in inferences per second.
    pub(super) of_native: f64,
    /// Medians.
    pub(super) instance_us: InstanceCost,
}

/// Cost of a cold start.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cold {
    /// Compiling the guest to machine code. `None` with --native, as the next two fields.
    pub(super) compile_ms: Option<f64>,
    /// Loading the compiled code.
    pub(super) deserialize_us: Option<f64>,
    /// Creating the first instance.
    pub(super) instantiate_us: Option<f64>,
    /// The first answer after loading, over the sandbox path if there is one.
    pub(super) first_inference_ms: f64,
}
