//! Calls of text models by the routes that need no guest.

use std::time::Instant;

use infer_engine::{Card, DType, Model, Reply, RunError, Tensor};
use serde::Serialize;
use serde_json::Value;

use super::context::{Caller, RequestContext};
use crate::error::ApiError;

/// Looks up the model called `name`; without a name, the only one that `fits`.
///
/// # Errors
///
/// 404 with the names of the models that fit: for a name that is not among them, or without a name
/// unless exactly one fits.
pub(super) fn find<'e>(
    context: &'e RequestContext,
    caller: &Caller,
    name: Option<&str>,
    fits: impl Fn(&Card) -> bool,
) -> Result<&'e Model, ApiError> {
    let may_use =
        |model: &Model| fits(model.card()) && caller.0.as_ref().is_none_or(|key| key.may_ask(model.name()));
    let fitting: Vec<_> = context.registry.models.values().filter(|model| may_use(model)).collect();
    let found = match (name, &fitting[..]) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), _) => fitting.iter().find(|model| model.name() == name),
    };
    found.map(|model| &***model).ok_or_else(|| {
        let known: Vec<_> = fitting.iter().map(|model| model.name()).collect();
        ApiError::no_model(name.unwrap_or_default(), &known, "no model for this route is configured")
    })
}

/// A call of a text model.
pub(super) struct TextCall<'c, T> {
    pub(super) model: &'c Model,
    /// Texts, pairs of texts, or token ids, as JSON.
    pub(super) texts: &'c [T],
    pub(super) params: &'c Value,
    /// Index of the first text in the request.
    pub(super) first: usize,
}

impl<T: Serialize> TextCall<'_, T> {
    /// Runs the model.
    ///
    /// # Errors
    ///
    /// Those of the model.
    pub(super) async fn run(self, deadline: Instant) -> Result<TextAnswer, ApiError> {
        let inputs = [("texts", serde_json::to_vec(self.texts)), ("params", serde_json::to_vec(self.params))];
        let mut tensors = Vec::new();
        for (name, json) in inputs {
            let json = json.map_err(|_| ApiError::internal("internal"))?;
            tensors.push((name.to_owned(), Tensor::from_bytes(json)));
        }
        match self.model.run(tensors, deadline).await {
            Ok(reply) => Ok(TextAnswer { reply }),
            Err(error) if self.first > 0 && matches!(error, RunError::InvalidInput { .. }) => {
                let error = format!("in the texts from index {}: {error}", self.first);
                Err(ApiError::invalid("", error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Answer of a text model.
pub(super) struct TextAnswer {
    reply: Reply,
}

impl TextAnswer {
    fn output(&self, name: &str) -> Result<&Tensor, ApiError> {
        let found = self.reply.outputs.iter().find(|(output, _)| output == name);
        found.map(|(_, tensor)| tensor).ok_or_else(|| ApiError::internal("model_failed"))
    }

    /// Values of the f32 output `name`, and the length of a row.
    pub(super) fn rows(&self, name: &str) -> Result<(Vec<f32>, usize), ApiError> {
        let output = self.output(name)?;
        let size = output.shape().last().copied().unwrap_or(0);
        if output.dtype() != DType::F32 || size == 0 {
            return Err(ApiError::internal("model_failed"));
        }
        let values = output.to_vec::<f32>().map_err(|_| ApiError::internal("model_failed"))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ApiError::internal("model_failed"));
        }
        Ok((values, size))
    }

    /// Number of tokens of all texts.
    pub(super) fn tokens(&self) -> Result<usize, ApiError> {
        let metadata: Value = serde_json::from_slice(self.output("metadata")?.data())
            .map_err(|_| ApiError::internal("model_failed"))?;
        let tokens = metadata["tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let count = |tokens: &Value| tokens.as_u64().and_then(|count| usize::try_from(count).ok());
        Ok(tokens.iter().filter_map(count).sum())
    }
}
