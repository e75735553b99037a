//! The OpenAPI document: documentation of a route, and of all routes together.
//!
//! Bodies are documented by the types that are parsed and serialized. This module adds the parts
//! common to all routes: the request id, and the format of errors.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use infer_config::paths::Method;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    PathItem, PathsBuilder, Ref, RefOr, Required, Response, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::error::Envelope;

pub(super) const JSON: &str = "application/json";

/// Name of the program, as clients see it.
pub(super) const PRODUCT: &str = "infer";

const DESCRIPTION: &str = "An edge AI inference server: models in the host, policy in WebAssembly sandboxes";

/// Names of the security schemes in the document.
const KEY: &str = "key";
const QUERY_KEY: &str = "key_in_query";

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The finished document. It is empty until all routes are in the table.
pub(super) type Document = Arc<OnceLock<Bytes>>;

pub(super) fn openapi() -> RouteDoc {
    let document = ObjectBuilder::new().schema_type(Type::Object);
    RouteDoc::new::<Envelope<'_>>("The OpenAPI document of this server").response(
        StatusCode::OK,
        JSON,
        "an OpenAPI document",
        document,
    )
}

pub(super) async fn serve(State(document): State<Document>) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, JSON)], document.get().cloned().unwrap_or_default())
}

/// Operations of the document, by path and method.
#[derive(Default)]
pub(super) struct Operations {
    operations: Vec<(String, HttpMethod, Operation)>,
    schemas: Schemas,
}

impl Operations {
    /// Adds the operation of `method` at `path`.
    pub(super) fn add(&mut self, path: &str, method: Method, doc: RouteDoc) {
        let RouteDoc { mut operation, mut responses, schemas, .. } = doc;
        let words = path.split(|character: char| !character.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
        let (verb, method) = match method {
            Method::Get => ("get", HttpMethod::Get),
            Method::Post => ("post", HttpMethod::Post),
        };
        operation.operation_id = Some(format!("{verb}_{words}"));
        let is_in_path = |parameter: &Parameter| {
            parameter.parameter_in != ParameterIn::Path || path.contains(&format!("{{{}}}", parameter.name))
        };
        operation.parameters = operation
            .parameters
            .map(|parameters| parameters.into_iter().filter(is_in_path).collect())
            .filter(|parameters: &Vec<_>| !parameters.is_empty());
        for response in responses.values_mut() {
            let id = HeaderBuilder::new().schema(String::schema()).description(Some("the request's id"));
            response.headers.insert("x-request-id".to_owned(), id.build());
        }
        let responses = responses.into_iter().map(|(status, response)| (status, RefOr::T(response)));
        operation.responses.responses = responses.collect();
        self.operations.push((path.to_owned(), method, operation));
        self.schemas.extend(schemas);
    }

    /// Serializes the document. API keys are part of it if `needs_keys`.
    pub(super) fn document(mut self, needs_keys: bool) -> Bytes {
        if !needs_keys {
            for (_, _, operation) in &mut self.operations {
                operation.security = None;
                operation.responses.responses.remove(StatusCode::UNAUTHORIZED.as_str());
            }
        }
        let document = document(self.operations, self.schemas, needs_keys);
        // Strings and maps with string keys: serialization cannot fail.
        serde_json::to_vec(&document).unwrap_or_default().into()
    }
}

fn document(operations: Vec<(String, HttpMethod, Operation)>, schemas: Schemas, needs_keys: bool) -> OpenApi {
    let mut paths = PathsBuilder::new();
    for (path, method, operation) in operations {
        paths = paths.path(path, PathItem::new(method, operation));
    }
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    if needs_keys {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let query = SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new("key")));
        components =
            components.security_scheme(KEY, SecurityScheme::Http(bearer)).security_scheme(QUERY_KEY, query);
    }
    let info =
        InfoBuilder::new().title(PRODUCT).version(env!("CARGO_PKG_VERSION")).description(Some(DESCRIPTION));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// Documentation of one route.
#[derive(Clone)]
pub(super) struct RouteDoc {
    operation: Operation,
    responses: BTreeMap<String, Response>,
    schemas: Schemas,
    /// Adds error responses in the format of the route's protocol.
    errors: fn(Self, &[u16]) -> Self,
}

impl RouteDoc {
    /// Creates the documentation of a route with this `summary`, and errors of type `E`.
    pub(super) fn new<E: ToSchema>(summary: &str) -> Self {
        let mut operation = Operation::new();
        operation.summary = Some(summary.to_owned());
        RouteDoc { operation, responses: BTreeMap::new(), schemas: Schemas::new(), errors: errors::<E> }
    }

    /// Adds a parameter of the path, for those paths of the route that have it.
    pub(super) fn path_parameter(self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(String::schema()));
        self.parameter(parameter.build())
    }

    /// Adds an optional request header.
    pub(super) fn request_header(
        self,
        name: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        self.optional(ParameterIn::Header, name, description, schema.into())
    }

    /// Adds an optional query parameter.
    pub(super) fn query_parameter(
        self,
        name: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        self.optional(ParameterIn::Query, name, description, schema.into())
    }

    fn optional(self, location: ParameterIn, name: &str, description: &str, schema: RefOr<Schema>) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(location)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema));
        self.parameter(parameter.build())
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.operation.parameters.get_or_insert_default().push(parameter);
        self
    }

    /// Adds a JSON request body of type `T`.
    pub(super) fn json_body<T: ToSchema>(mut self) -> Self {
        let schema = self.schema::<T>();
        self.body(JSON, schema)
    }

    /// Adds a request body of content type `kind`.
    pub(super) fn body(mut self, kind: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let body = self.operation.request_body.take().map_or_else(RequestBodyBuilder::new, Into::into);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        self.operation.request_body =
            Some(body.content(kind, content).required(Some(Required::True)).build());
        self
    }

    /// Adds a JSON response body of type `T`.
    pub(super) fn json_response<T: ToSchema>(mut self, status: StatusCode, description: &str) -> Self {
        let schema = self.schema::<T>();
        self.response(status, JSON, description, schema)
    }

    /// Adds a response body of content type `kind`.
    pub(super) fn response(
        mut self,
        status: StatusCode,
        kind: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let response = self.response_mut(status);
        if !response.description.contains(description) {
            let between = if response.description.is_empty() { "" } else { "; " };
            response.description += &format!("{between}{description}");
        }
        response.content.insert(kind.to_owned(), ContentBuilder::new().schema(Some(schema)).build());
        self
    }

    /// Adds a response header.
    pub(super) fn response_header(mut self, status: StatusCode, name: &str, description: &str) -> Self {
        let header = HeaderBuilder::new().schema(String::schema()).description(Some(description));
        self.response_mut(status).headers.insert(name.to_owned(), header.build());
        self
    }

    /// Adds an error response for each of `statuses`.
    pub(super) fn errors(self, statuses: &[u16]) -> Self {
        (self.errors)(self, statuses)
    }

    /// Requires an API key, if the server has any.
    pub(super) fn api_key(mut self) -> Self {
        let scopes: [String; 0] = [];
        let requirement = SecurityRequirement::new(KEY, scopes);
        self.operation.security.get_or_insert_default().insert(0, requirement);
        self.errors(&[401, 429])
    }

    /// Permits the API key in the query as well.
    pub(super) fn or_query_key(mut self) -> Self {
        let scopes: [String; 0] = [];
        let requirement = SecurityRequirement::new(QUERY_KEY, scopes);
        self.operation.security.get_or_insert_default().push(requirement);
        self
    }

    /// Returns a reference to the schema of `T`, and adds the schema to the document.
    fn schema<T: ToSchema>(&mut self) -> Ref {
        let mut needed = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut needed);
        self.schemas.extend(needed);
        Ref::from_schema_name(T::name())
    }

    fn response_mut(&mut self, status: StatusCode) -> &mut Response {
        self.responses.entry(status.as_str().to_owned()).or_default()
    }
}

/// Adds an error response of type `E` to `doc` for each of `statuses`.
fn errors<E: ToSchema>(mut doc: RouteDoc, statuses: &[u16]) -> RouteDoc {
    for status in statuses.iter().filter_map(|status| StatusCode::from_u16(*status).ok()) {
        doc = doc.json_response::<E>(status, reason(status));
        if status == StatusCode::TOO_MANY_REQUESTS {
            doc = doc.response_header(status, "retry-after", "seconds until the next attempt");
        }
        if status == StatusCode::UNAUTHORIZED {
            doc = doc.response_header(status, "www-authenticate", "`Bearer`");
        }
    }
    doc
}

/// Reason of an error status.
fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "invalid request; the message names the invalid part",
        401 => "API key missing or invalid",
        403 => "not permitted for this API key",
        404 => "not found, or not permitted for this API key",
        408 => "the body did not arrive in time",
        409 => "rejected; the message has the reason, and nothing has changed",
        413 => "larger than a limit of the server",
        415 => "unsupported content type or content coding",
        422 => "`Idempotency-Key` was used before with another request",
        429 => "the server is at capacity, or a limit of this address or API key is reached",
        501 => "no configured model supports the request",
        502 => "an upstream has failed; the message names it and the cause",
        503 => "not ready, or an upstream is unavailable",
        504 => "deadline exceeded",
        _ => "internal error; the server's log has the reason, under the request's id",
    }
}
