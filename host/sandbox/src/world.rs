//! The kinds of component, by their exports.

use std::fmt;

/// What a component answers, by what it exports: the worlds of `wit/infer.wit`.
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
