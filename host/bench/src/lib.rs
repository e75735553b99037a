//! `infer bench`: speed of a model or a component over each path to it, in one run.
//!
//! Native rows call the engine; sandbox rows call it from a fresh guest instance; http rows send
//! requests to a server, in this process or elsewhere. Rows alternate, so that noise on the machine
//! affects all of them.
//!
//! # Layout
//!
//! - `subject`: the loaded model or component; `work`, `dataset`, `sample`, `random`: the inputs
//! - `path`, `client`, `answer`: one request and its answer; `load`: many of them
//! - `stats`: from calls to metrics; `quality`: accuracy; `advice`: warnings about reliability
//! - `language`: prefill, decode, and the time to a verdict; `cold`: cost of a start; `machine`:
//!   the hardware
//! - `limits`: the fixed limits of inputs and results
//! - `report`, `print`, `plot`: output; `baseline`: conditions that fail a run

mod advice;
mod answer;
mod args;
mod baseline;
mod client;
mod cold;
mod dataset;
mod figures;
mod item;
mod language;
mod limits;
mod load;
mod machine;
mod path;
mod plot;
mod print;
mod quality;
mod random;
mod report;
mod run;
mod sample;
mod stats;
mod subject;
mod work;

pub use args::{Bench, BenchFormat, BenchTask, PrefixCache, Server, Target, duration};
pub use baseline::Condition;
pub use run::run;
