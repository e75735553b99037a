//! A setting that a guest reads through `wasi:config/store`.

use std::fmt;

use serde::Deserialize;

/// A setting; the guest reads it as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a setting is a string, a number or a boolean")]
pub(crate) enum Setting {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Text(text) => f.write_str(text),
            Setting::Integer(number) => number.fmt(f),
            Setting::Float(number) => number.fmt(f),
            Setting::Boolean(truth) => truth.fmt(f),
        }
    }
}
