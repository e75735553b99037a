use std::collections::BTreeSet;
use std::sync::Arc;

use infer_config::paths::is_reserved;
use infer_server::serve::Listeners;
use infer_server::service::Service;
use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{BUILTIN, Server, answer, load};

/// The paths of `router`, from axum's debug output.
fn paths(router: &axum::Router) -> BTreeSet<String> {
    let printed = format!("{router:?}");
    let (routes, _) = printed.split_once("fallback_router").unwrap();
    let pieces = routes.split("\"/").skip(1).filter_map(|piece| piece.split('"').next());
    pieces.map(|piece| format!("/{piece}")).collect()
}

fn documented(document: &Value) -> BTreeSet<String> {
    document["paths"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn document_lists_exactly_the_public_routes() {
    let server = Server::builtin().await;
    let (status, document) = answer(server.get("/openapi.json")).await;
    assert_eq!(status, StatusCode::OK);
    let listeners = Listeners::bind(&load("[server]\nlisten = \"127.0.0.1:0\"").config.server).await.unwrap();
    let routed = paths(&Service::new(BUILTIN.clone(), listeners.admin_address(), None).router(false));
    assert!(routed.contains("/moderate") && routed.contains("/v2/models/{model}/infer"), "{routed:?}");
    assert_eq!(documented(&document), routed);
    let of_components = ["/classify", "/moderate"];
    for path in &routed {
        assert_ne!(is_reserved(path), of_components.contains(&path.as_str()), "{path}");
    }
    // The server itself reports the methods that it accepts.
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", "moderation-encoder").replace("{version}", "1");
        for (method, request) in [("get", server.get(&path)), ("post", server.post(&path))] {
            let status = request.send().await.unwrap().status();
            let is_served = status != StatusCode::METHOD_NOT_ALLOWED && status != StatusCode::NOT_FOUND;
            assert_eq!(item.get(method).is_some(), is_served, "{method} {path} is {status}");
        }
    }
}

#[tokio::test]
async fn admin_document_lists_admin_routes() {
    let registry = Arc::new(load("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\""));
    let listeners = Listeners::bind(&registry.config.server).await.unwrap();
    let address = listeners.admin_address().unwrap();
    let service = Service::new(registry, listeners.admin_address(), None);
    let routed = paths(&service.router(true));
    let expected = [
        "/admin/reload",
        "/admin/state",
        "/admin/versions",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/v1/models",
    ];
    assert_eq!(routed, BTreeSet::from(expected.map(str::to_owned)));
    let public = paths(&service.router(false));
    assert!(!public.contains("/metrics") && public.contains("/openapi.json"), "{public:?}");
    let _server = Server::of(service, listeners);
    let (_, document) = answer(reqwest::Client::new().get(format!("http://{address}/openapi.json"))).await;
    assert_eq!(documented(&document), routed);
}

#[tokio::test]
async fn document_has_keys_if_configured() {
    let (_, document) = answer(Server::builtin().await.get("/openapi.json")).await;
    assert!(document["components"]["securitySchemes"].is_null());
    assert!(!document.to_string().contains("\"401\""));
    let key = infer_config::keys::KeyHash::of("secret");
    let server = Server::start(Arc::new(load(&format!("[keys.alice]\nhash = \"{key}\"")))).await;
    assert_eq!(server.get("/openapi.json").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let (_, document) = answer(server.get("/openapi.json").bearer_auth("secret")).await;
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let models = &document["paths"]["/v1/models"]["get"];
    assert!(models["security"][0]["key"].is_array() && models["responses"]["401"].is_object());
    assert!(document["paths"]["/healthz"]["get"]["security"].is_null());
}

#[tokio::test]
async fn schema_references_resolve() {
    let (_, document) = answer(Server::builtin().await.get("/openapi.json")).await;
    let text = document.to_string();
    let names: BTreeSet<_> =
        text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn clients_see_the_product_name() {
    let server = Server::builtin().await;
    let (_, document) = answer(server.get("/openapi.json")).await;
    assert_eq!(document["info"]["title"], "infer");
    let (_, metadata) = answer(server.get("/v2")).await;
    assert_eq!(metadata["name"], "infer");
}
