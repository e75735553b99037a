//! The two forms of a request, and the errors of its members.

use infer_engine::{LanguageModel, Model};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::routes::members;

/// API form of the request and the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Chat,
    Completion,
}

impl Form {
    /// Path of the form below the URL of an upstream.
    pub(super) fn upstream_path(self) -> &'static str {
        match self {
            Form::Chat => "/chat/completions",
            Form::Completion => "/completions",
        }
    }
}

/// The error for the member called `name`.
pub(super) fn at(name: &str, message: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` {message}"))
}

/// Parses the value of a member.
pub(super) fn parse<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(value.get())
        .map_err(|error| format!("is invalid: {}", members::without_position(&error)))
}

pub(super) fn language(model: &Model) -> Result<&LanguageModel, ApiError> {
    model.language().ok_or_else(|| ApiError::internal("internal"))
}
