//! Worlds of components.

use std::fmt;

/// World of a component, identified by its exports: see `wit/infer.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Exports `infer:guest/moderation`.
    Moderator,
    /// Exports `infer:guest/classification`.
    Classifier,
    /// Exports `infer:guest/prediction`.
    Predictor,
    /// Exports `wasi:http/incoming-handler`.
    Handler,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Moderator => "moderator",
            World::Classifier => "classifier",
            World::Predictor => "predictor",
            World::Handler => "handler",
        })
    }
}
