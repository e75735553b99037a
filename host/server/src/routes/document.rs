//! The route table together with its OpenAPI document: a route cannot be added to one without the
//! other.
//!
//! Bodies are documented by the types that are parsed and serialized. This module adds the parts
//! common to all routes: the request id, and the errors of the layers in front of a handler.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::routing::{MethodRouter, get};
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

pub(super) const JSON: &str = "application/json";

/// Names of the security schemes in the document.
const KEY: &str = "key";
const QUERY_KEY: &str = "key_in_query";

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Routes and their documentation.
#[derive(Default)]
pub(super) struct Table {
    router: Router,
    operations: Vec<(String, HttpMethod, Operation)>,
    schemas: Schemas,
}

impl Table {
    /// Adds `handler` at `path` for `method`.
    pub(super) fn route(
        mut self,
        path: &str,
        method: HttpMethod,
        handler: MethodRouter,
        doc: RouteDoc,
    ) -> Self {
        self.tell(path, method, doc);
        self.router = self.router.route(path, handler);
        self
    }

    /// Adds a component's `handler` at `paths` for any method. Its bodies are up to the component,
    /// so they are not documented.
    pub(super) fn mount(mut self, paths: &[String], handler: &MethodRouter) -> Self {
        for path in paths {
            self.router = self.router.route(path, handler.clone());
        }
        self
    }

    /// Documents a route that is served outside this table.
    pub(super) fn beside(mut self, path: &str, method: HttpMethod, doc: RouteDoc) -> Self {
        self.tell(path, method, doc);
        self
    }

    /// Wraps the routes added so far in `layer`.
    pub(super) fn wrap(mut self, layer: impl FnOnce(Router) -> Router) -> Self {
        self.router = layer(self.router);
        self
    }

    /// Merges both tables.
    pub(super) fn merge(mut self, other: Table) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self.schemas.extend(other.schemas);
        self
    }

    /// Builds the router, with the document as one of its routes, behind `guard`. If the server
    /// `asks_for_keys`, the document says so.
    pub(super) fn into_router(
        mut self,
        doc: RouteDoc,
        asks_for_keys: bool,
        guard: impl FnOnce(MethodRouter) -> MethodRouter,
    ) -> Router {
        self.tell(infer_config::paths::OPENAPI, HttpMethod::Get, doc);
        let Table { router, mut operations, schemas } = self;
        if !asks_for_keys {
            for (_, _, operation) in &mut operations {
                operation.security = None;
                operation.responses.responses.remove(StatusCode::UNAUTHORIZED.as_str());
            }
        }
        // Strings and maps with string keys: serialization cannot fail.
        let document = serde_json::to_vec(&document(operations, schemas, asks_for_keys)).unwrap_or_default();
        let document = Bytes::from(document);
        router.route(
            infer_config::paths::OPENAPI,
            guard(get(async move || ([(header::CONTENT_TYPE, JSON)], document.clone()))),
        )
    }

    fn tell(&mut self, path: &str, method: HttpMethod, doc: RouteDoc) {
        let RouteDoc { mut operation, mut responses, schemas } = doc;
        let words = path.split(|character: char| !character.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
        let verb = if method == HttpMethod::Post { "post" } else { "get" };
        operation.operation_id = Some(format!("{verb}_{words}"));
        for response in responses.values_mut() {
            let id = HeaderBuilder::new().schema(String::schema()).description(Some("the request's id"));
            response.headers.insert("x-request-id".to_owned(), id.build());
        }
        let responses = responses.into_iter().map(|(status, response)| (status, RefOr::T(response)));
        operation.responses.responses = responses.collect();
        self.operations.push((path.to_owned(), method, operation));
        self.schemas.extend(schemas);
    }
}

fn document(
    operations: Vec<(String, HttpMethod, Operation)>,
    schemas: Schemas,
    asks_for_keys: bool,
) -> OpenApi {
    let mut paths = PathsBuilder::new();
    for (path, method, operation) in operations {
        paths = paths.path(path, PathItem::new(method, operation));
    }
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    if asks_for_keys {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let query = SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new("key")));
        components =
            components.security_scheme(KEY, SecurityScheme::Http(bearer)).security_scheme(QUERY_KEY, query);
    }
    let info = InfoBuilder::new()
        .title(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// Documentation of the document's own route.
pub(super) fn openapi() -> RouteDoc {
    let document = ObjectBuilder::new().schema_type(Type::Object);
    RouteDoc::new("What is served here").answers_as(StatusCode::OK, JSON, "an OpenAPI document", document)
}

/// Documentation of one route.
pub(super) struct RouteDoc {
    operation: Operation,
    responses: BTreeMap<String, Response>,
    schemas: Schemas,
}

impl RouteDoc {
    /// Creates the documentation of a route with this `summary`.
    pub(super) fn new(summary: &str) -> Self {
        let mut operation = Operation::new();
        operation.summary = Some(summary.to_owned());
        RouteDoc { operation, responses: BTreeMap::new(), schemas: Schemas::new() }
    }

    /// Adds a parameter of the path.
    pub(super) fn segment(self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(String::schema()));
        self.parameter(parameter.build())
    }

    /// Adds an optional request header.
    pub(super) fn header(self, name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.optional(ParameterIn::Header, name, description, schema.into())
    }

    /// Adds an optional query parameter.
    pub(super) fn query(self, name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.optional(ParameterIn::Query, name, description, schema.into())
    }

    fn optional(self, place: ParameterIn, name: &str, description: &str, schema: RefOr<Schema>) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
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
    pub(super) fn reads<T: ToSchema>(mut self) -> Self {
        let schema = self.schema::<T>();
        self.reads_as(JSON, schema)
    }

    /// Adds a request body of content type `kind`.
    pub(super) fn reads_as(mut self, kind: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let body = self.operation.request_body.take().map_or_else(RequestBodyBuilder::new, Into::into);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        self.operation.request_body =
            Some(body.content(kind, content).required(Some(Required::True)).build());
        self
    }

    /// Adds a JSON response body of type `T`.
    pub(super) fn answers<T: ToSchema>(mut self, status: StatusCode, description: &str) -> Self {
        let schema = self.schema::<T>();
        self.answers_as(status, JSON, description, schema)
    }

    /// Adds a response body of content type `kind`.
    pub(super) fn answers_as(
        mut self,
        status: StatusCode,
        kind: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let response = self.response(status);
        if !response.description.contains(description) {
            let between = if response.description.is_empty() { "" } else { "; " };
            response.description += &format!("{between}{description}");
        }
        response.content.insert(kind.to_owned(), ContentBuilder::new().schema(Some(schema)).build());
        self
    }

    /// Adds a response header.
    pub(super) fn tells(mut self, status: StatusCode, name: &str, description: &str) -> Self {
        let header = HeaderBuilder::new().schema(String::schema()).description(Some(description));
        self.response(status).headers.insert(name.to_owned(), header.build());
        self
    }

    /// Adds an error response of type `E` for each of `statuses`.
    pub(super) fn fails<E: ToSchema>(mut self, statuses: &[u16]) -> Self {
        for status in statuses.iter().filter_map(|status| StatusCode::from_u16(*status).ok()) {
            self = self.answers::<E>(status, meaning(status));
            if status == StatusCode::TOO_MANY_REQUESTS {
                self = self.tells(status, "retry-after", "when to ask again, in seconds");
            }
            if status == StatusCode::UNAUTHORIZED {
                self = self.tells(status, "www-authenticate", "`Bearer`");
            }
        }
        self
    }

    /// Requires a key, if the server has any.
    pub(super) fn behind_key<E: ToSchema>(mut self) -> Self {
        let none: [String; 0] = [];
        self.operation.security = Some(vec![SecurityRequirement::new(KEY, none)]);
        self.fails::<E>(&[401, 429])
    }

    /// Permits the key in the query as well.
    pub(super) fn or_query_key(mut self) -> Self {
        let none: [String; 0] = [];
        self.operation.security.get_or_insert_default().push(SecurityRequirement::new(QUERY_KEY, none));
        self
    }

    /// Adds the errors of routes behind [`super::context::admit`], which have a body and a
    /// deadline.
    pub(super) fn admitted<E: ToSchema>(self) -> Self {
        self.behind_key::<E>().fails::<E>(&[400, 408, 413, 500, 504])
    }

    /// Returns a reference to the schema of `T`, and adds the schema to the document.
    fn schema<T: ToSchema>(&mut self) -> Ref {
        let mut needed = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut needed);
        self.schemas.extend(needed);
        Ref::from_schema_name(T::name())
    }

    fn response(&mut self, status: StatusCode) -> &mut Response {
        self.responses.entry(status.as_str().to_owned()).or_default()
    }
}

/// Reason of an error status.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "something of the request is wrong, which the message names",
        401 => "a key is needed, or the one that was sent is none",
        403 => "the key is good, and not for this",
        404 => "nothing goes by that name, or nothing that the key reaches",
        408 => "the body did not arrive in time",
        413 => "larger than the server takes",
        415 => "not of a type that is read here",
        422 => "the `Idempotency-Key` came before with another request",
        429 => "the server, this address or this key has as much under way as it may",
        501 => "no configured model can say",
        503 => "not ready",
        504 => "not answered within the deadline",
        _ => "the server's log says why, under the request's id",
    }
}
