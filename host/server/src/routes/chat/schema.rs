//! OpenAPI schemas of the two routes. One type parses both bodies; the schema of each route is that
//! type without the members of the other.

use std::borrow::Cow;

use axum::http::StatusCode;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::body::Body;
use super::form::Form;
use super::response::Completion;
use crate::error::Envelope;
use crate::routes::document::RouteDoc;

/// The body of a chat.
struct ChatBody;

/// The body of a completion.
struct CompletionBody;

impl PartialSchema for ChatBody {
    fn schema() -> RefOr<Schema> {
        body("messages", &["prompt"], Type::Boolean)
    }
}

impl ToSchema for ChatBody {
    fn name() -> Cow<'static, str> {
        "ChatRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
    }
}

impl PartialSchema for CompletionBody {
    fn schema() -> RefOr<Schema> {
        body("prompt", &["messages", "chat_template_kwargs"], Type::Integer)
    }
}

impl ToSchema for CompletionBody {
    fn name() -> Cow<'static, str> {
        "CompletionRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
    }
}

/// The schema of a body that requires `own`, and has no member of `others`.
fn body(own: &str, others: &[&str], logprobs: Type) -> RefOr<Schema> {
    let mut schema = Body::schema();
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        others.iter().for_each(|other| drop(object.properties.remove(*other)));
        object.required.push(own.to_owned());
        object.description = None;
        let either = SchemaType::Array(vec![logprobs, Type::Null]);
        let logprobs = ObjectBuilder::new().schema_type(either);
        object.properties.insert("logprobs".to_owned(), logprobs.into());
    }
    schema
}

/// The documentation of the route of `form`.
pub(crate) fn openapi(form: Form) -> RouteDoc {
    let (doc, ok) = (RouteDoc::new::<Envelope<'_>>, StatusCode::OK);
    let doc = match form {
        Form::Chat => doc("Next turn of a chat").json_body::<ChatBody>(),
        Form::Completion => doc("Continuation of a text").json_body::<CompletionBody>(),
    };
    let events = "with `stream`: server-sent events";
    let data = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("a chunk of the answer in JSON, or `[DONE]` at the end"));
    let event = ObjectBuilder::new().property("data", data).required("data");
    doc.json_response::<Completion>(ok, "the answer")
        .response(ok, "text/event-stream", events, event)
        .errors(&[404, 502, 503])
}
