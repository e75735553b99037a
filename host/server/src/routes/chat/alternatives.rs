//! Members of several possible types, for the OpenAPI document.

use serde::Deserialize;
use utoipa::ToSchema;

/// A text, or the ids of its tokens.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "documented here, never constructed")]
pub(super) enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
}

/// One text, or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "documented here, never constructed")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}
