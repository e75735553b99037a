//! `infer bench`: how fast a model or a component is, by each way that leads to it, in one run.
//!
//! Native rows ask the engine; sandbox rows let a fresh guest instance ask it; http rows ask a
//! server, in this process or elsewhere. Rows take turns, so that what disturbs the machine
//! disturbs all of them.
//!
//! # Layout
//!
//! - `subject`: what is measured, loaded; `work`, `dataset`, `sample`, `random`: what is asked
//! - `path`, `client`, `answer`: one request and its answer; `load`: many of them
//! - `stats`: from calls to figures; `quality`: how right they are; `advice`: how far to believe
//!   them
//! - `language`: prefill, decode, and the time to a verdict; `cold`: what a start costs; `machine`:
//!   where it ran
//! - `report`, `print`, `plot`: what comes out; `baseline`: whether that is good enough

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
