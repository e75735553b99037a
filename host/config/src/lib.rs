//! Parses, checks, compares and edits infer.toml and infer.lock.
//!
//! # Layout
//!
//! - `file`: the parsed keys; `check`: turns them into a [`Config`] and names each mistake with its
//!   line; `config`: the result; `load`: reads and checks a file; `place`: lines and mistakes
//! - `server`, `trial`, `component_test`, `address`: parts of a configuration
//! - `keys`: API keys and their hashes; `paths`: the server's own routes
//! - `resolved`: compares two configurations; `edit`: edits the text; `watched`: the files that a
//!   configuration depends on
//! - `lock`: infer.lock, which pins models and components by their hashes
//! - `data_url`, `percent`: decoders of bytes in text

mod address;
mod check;
mod component_test;
mod config;
pub mod data_url;
pub mod edit;
mod file;
pub mod keys;
mod load;
pub mod lock;
pub mod paths;
pub mod percent;
mod place;
mod resolved;
mod server;
mod trial;
mod watched;

pub use address::{Address, NoAddress};
pub use component_test::{ComponentTest, TestImage};
pub use config::{ComponentConfig, Config, ModelConfig};
pub use load::{CONFIG, MAX_BYTES};
pub use place::{ConfigError, Mistake, Origin, Place};
pub use resolved::{Change, Resolved};
pub use server::{ANY_ORIGIN, ConnectionLimits, KeyConfig, MemoryContract, Rate, ServerConfig, TlsFiles};
pub use trial::{Next, Trial};
pub use watched::Files;
