//! Parses, checks, compares and edits infer.toml and infer.lock.
//!
//! # Layout
//!
//! - `table`: every key of infer.toml, with its type, range, default, reload rule and
//!   documentation; `key`: the types of the table and the macro that declares a section; `setting`:
//!   a guest's setting; `file`: the parsed sections
//! - `check`: turns the sections into a [`Config`] and names each mistake with its line; `config`:
//!   the result; `load`: reads and checks a file; `place`: lines and mistakes; `limits`: fixed
//!   limits
//! - `server`, `guard`, `trial`, `component_test`, `address`: parts of a configuration
//! - `keys`: API keys and their hashes; `paths`: the server's own routes
//! - `resolved`: compares two configurations; `edit`: edits the text; `watched`: the files that a
//!   configuration depends on
//! - `lock`: infer.lock, which pins models and components by their hashes
//! - `thresholds`: thresholds of a component, and the versions that they hold for
//! - `data_url`, `percent`: decoders of bytes in text
//! - `documentation` (tests only): the lists of keys in docs/CONFIGURATION.md

mod address;
mod check;
mod component_test;
mod config;
pub mod data_url;
#[cfg(test)]
mod documentation;
pub mod edit;
mod file;
mod guard;
mod key;
pub mod keys;
mod limits;
mod load;
pub mod lock;
pub mod network;
pub mod paths;
pub mod percent;
mod place;
mod resolved;
mod server;
mod setting;
mod table;
pub mod thresholds;
mod trial;
pub mod upstream;
mod watched;

pub use address::{Address, InvalidAddress};
pub use component_test::{ComponentTest, TestImage};
pub use config::{ComponentConfig, Config, Guards, ModelConfig};
pub use guard::{BlockedInput, GuardConfig, OnError, OnFlag, Windows};
pub use limits::{MAX_CA_BYTES, MAX_CONFIG_BYTES, MAX_LOCK_BYTES};
pub use load::CONFIG;
pub use place::{ConfigError, Mistake, Origin, Place};
pub use resolved::{Change, Resolved};
pub use server::{ANY_ORIGIN, ConnectionLimits, KeyConfig, MemoryContract, Rate, ServerConfig, TlsFiles};
pub use trial::{Next, Trial};
pub use watched::Files;
