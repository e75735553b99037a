//! What a run found. As JSON all of it, in the order of these fields.

use serde::Serialize;

use crate::figures::{Decode, Prefill, Verdict};
use crate::machine::Machine;
use crate::quality::Quality;
use crate::stats::{InstanceCost, Row};

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Some model's weights are random: rates are those of a real one, answers mean nothing.
    pub(super) dummy: bool,
    pub(super) host: Machine,
    /// None where it is a server's, and the server does not tell.
    pub(super) model: Option<Subject>,
    pub(super) task: String,
    pub(super) target: String,
    pub(super) load: LoadFacts,
    pub(super) rows: Vec<Row>,
    /// What the sandbox costs, where native and sandbox did the same work.
    pub(super) sandbox: Vec<SandboxTax>,
    /// Of language models; else empty.
    pub(super) prefill: Vec<Prefill>,
    pub(super) decode: Option<Decode>,
    /// From a post to its verdict, for language models that judge.
    pub(super) verdict: Option<Verdict>,
    /// With --cold.
    pub(super) cold: Option<Cold>,
    /// With a dataset that carries labels.
    pub(super) quality: Option<Quality>,
    /// The most memory that this process has had, client included.
    pub(super) rss_peak_bytes: u64,
    pub(super) warnings: Vec<String>,
}

/// The model that is measured, and how it is run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Subject {
    pub(super) name: String,
    /// SHA-256 over the card and the files.
    pub(super) hash: String,
    /// The component that asks it, where one of the configuration is measured.
    pub(super) component: Option<String>,
    /// What computes it: `onnxruntime`, `rten`, or the kernels' instruction set.
    pub(super) backend: String,
    /// Types of its weights, those with most bytes first.
    pub(super) quantization: Option<String>,
    pub(super) sessions: Option<usize>,
    pub(super) threads: Option<usize>,
    /// From the start of the run until everything was loaded.
    pub(super) load_ms: Option<f64>,
}

/// How it was asked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LoadFacts {
    /// Requests a second, in an open loop; none in a closed one.
    pub(super) rate: Option<f64>,
    /// Of each row.
    pub(super) seconds: Option<f64>,
    /// Of each row.
    pub(super) requests: Option<u64>,
    pub(super) repeats: u32,
    pub(super) seed: u64,
    pub(super) slo_ms: Option<f64>,
    pub(super) prefix_cache: String,
    pub(super) dataset: Option<String>,
}

/// Sandbox beside native, at one concurrency.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SandboxTax {
    pub(super) concurrency: u32,
    /// Median over the turns of sandbox / native, in inferences a second.
    pub(super) of_native: f64,
    /// Medians.
    pub(super) instance_us: InstanceCost,
}

/// What a start costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cold {
    /// From a guest's bytes to machine code; none with --native, as what follows.
    pub(super) compile_ms: Option<f64>,
    /// Reading that code again.
    pub(super) deserialize_us: Option<f64>,
    /// The first instance.
    pub(super) instantiate_us: Option<f64>,
    /// The first answer after loading, by the way of the last row.
    pub(super) first_inference_ms: f64,
}
