use std::sync::Arc;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{BILSTM, Server, answer, hostile, load};

const INSULT: &str = "You are so dumb and stupid!";
const CLEAN: &str = "Thank you for fixing the article so quickly, it reads much better now.";

async fn moderations(server: &Server, query: &str, body: &Value) -> Response {
    server.post(&format!("/v1/moderations{query}")).json(body).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

async fn analyze(server: &Server, body: &Value) -> (StatusCode, Value) {
    answer(server.post("/v1alpha1/comments:analyze").json(body)).await
}

#[tokio::test]
async fn model_name_selects_the_component() {
    let two = Server::start(Arc::new(load(
        "[server]\naliases = { strict-one = \"strict\" }\n[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = { text = \"toxic-bilstm\" }\n\
         [components.strict]\nsource = \"builtin:moderate\"\nroute = \"/strict\"\n\
         models = { text = \"toxic-bilstm\" }\nsettings = { \"threshold.harassment\" = 0.0 }\n",
    )))
    .await;
    for (model, component) in [
        (json!(null), "moderate"),
        (json!("moderate"), "moderate"),
        (json!("omni-moderation-latest"), "moderate"),
        (json!("text-moderation-stable"), "moderate"),
        (json!("strict"), "strict"),
        (json!("strict-one"), "strict"),
    ] {
        let body = json!({ "input": CLEAN, "model": model });
        let (status, body) = answer(two.post("/v1/moderations").json(&body)).await;
        assert_eq!((status, &body["model"]), (StatusCode::OK, &json!(component)), "{model}: {body}");
        assert_eq!(body["results"][0]["flagged"], component == "strict", "{model}");
    }
    let (status, body) =
        answer(two.post("/v1/moderations").json(&json!({ "input": "a", "model": "gpt-9" }))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        (&body["error"]["code"], &body["error"]["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`gpt-9`") && message.contains("`strict`"), "{message}");
}

#[tokio::test]
async fn gate_answers_by_status_and_headers() {
    let server = Server::builtin().await;
    for (text, action, status) in [(CLEAN, "allow", StatusCode::OK), (INSULT, "block", StatusCode::FORBIDDEN)]
    {
        let full = moderations(&server, "", &json!({ "input": text })).await;
        assert_eq!((full.status(), header(&full, "x-infer-action")), (StatusCode::OK, action));
        let score: f64 = header(&full, "x-infer-score").parse().unwrap();
        assert_eq!(score > 0.5, action == "block", "{score}");
        assert_eq!(header(&full, "x-request-id").len(), 32);
        let gate = moderations(&server, "?mode=gate", &json!({ "input": [CLEAN, text] })).await;
        assert_eq!((gate.status(), header(&gate, "x-infer-action")), (status, action));
        assert!(gate.bytes().await.unwrap().is_empty());
    }
    let wrong = moderations(&server, "?mode=open", &json!({ "input": "a" })).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn thresholds_of_a_request_decide_flags() {
    let server = Server::builtin().await;
    let ask = async |thresholds: Value| {
        let body = json!({ "input": INSULT, "infer": { "thresholds": thresholds, "explain": true } });
        answer(server.post("/moderate").json(&body)).await
    };
    let (_, strict) = ask(json!({ "harassment": 0.0 })).await;
    assert_eq!(strict["results"][0]["categories"]["harassment"], true, "{strict}");
    let all =
        json!({ "harassment": 1.0, "harassment/threatening": 1.0, "hate": 1.0, "hate/threatening": 1.0 });
    let (_, lax) = ask(all).await;
    assert_eq!(lax["results"][0]["flagged"], false, "{lax}");
    assert_eq!(lax["results"][0]["category_scores"], strict["results"][0]["category_scores"]);
    let judged = lax["infer"]["explanations"][0]["judged"].as_array().unwrap();
    assert_eq!((&judged[0]["category"], judged.len()), (&json!("toxicity"), 10), "{lax}");
    let (status, error) = ask(json!({ "rudeness": 0.5 })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"]["param"], "infer.thresholds.rudeness", "{error}");
}

#[tokio::test]
async fn unjudged_input_follows_the_requested_fallback() {
    let server = Server::builtin().await;
    // More text windows than the model can process in a millisecond.
    let text = "the weather is lovely and the garden is full of flowers today ".repeat(200);
    let texts: Vec<_> = (0..100).map(|_| &text).collect();
    for (on_timeout, status, action) in [
        ("error", StatusCode::GATEWAY_TIMEOUT, None),
        ("review", StatusCode::OK, Some("review")),
        ("allow", StatusCode::OK, Some("allow")),
    ] {
        let extensions = json!({ "deadline_ms": 1, "on_timeout": on_timeout });
        let response = moderations(&server, "", &json!({ "input": texts, "infer": extensions })).await;
        assert_eq!(response.status(), status, "{on_timeout}");
        let Some(action) = action else { continue };
        assert_eq!(header(&response, "x-infer-action"), action);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["results"].as_array().unwrap().len(), 100);
        assert!(!body["infer"]["late"].as_array().unwrap().is_empty(), "{body}");
        // A text that was judged within the millisecond has gaps of its own, which may come first.
        let degraded = body["infer"]["degraded"].as_array().unwrap();
        let late = |gap: &Value| gap["reason"].as_str().unwrap().contains("deadline");
        assert!(degraded.iter().any(late), "{degraded:?}");
    }
    let extensions = json!({ "deadline_ms": 3_600_000 });
    let (status, error) =
        answer(server.post("/moderate").json(&json!({ "input": "a", "infer": extensions }))).await;
    assert_eq!((status, &error["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("infer.deadline_ms")));
}

#[tokio::test]
async fn idempotency_key_replays_the_same_request_only() {
    let server = Server::builtin().await;
    let ask = async |key: &str, text: &str| {
        let body = json!({ "input": text });
        let request = server.post("/v1/moderations").header("idempotency-key", key).json(&body);
        let response = request.send().await.unwrap();
        (response.status(), response.bytes().await.unwrap())
    };
    // An answer's id and timings are unique, so equal bytes prove that the answer was stored.
    let (one, two) = tokio::join!(ask("a", INSULT), ask("a", INSULT));
    assert_eq!((one.0, &one.1), (StatusCode::OK, &two.1));
    assert_eq!(ask("a", INSULT).await, one);
    assert_ne!(ask("b", INSULT).await.1, one.1);
    let (status, error) = ask("a", CLEAN).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let error: Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(error["error"]["code"], "idempotency_key_reused");
    // Failures are not stored.
    assert_eq!(ask("c", "").await.0, ask("c", "").await.0);
}

#[tokio::test]
async fn perspective_attributes_map_to_category_scores() {
    let server = Server::start(BILSTM.clone()).await;
    let (_, judged) = server.moderate(&json!({ "input": INSULT })).await;
    let scores = &judged["results"][0]["category_scores"];
    let further = &judged["infer"]["categories"][0];
    let request = json!({
        "comment": { "text": INSULT, "type": "PLAIN_TEXT" },
        "requestedAttributes": {
            "TOXICITY": {}, "INSULT": { "scoreType": "PROBABILITY" }, "IDENTITY_ATTACK": {},
            "THREAT": { "scoreThreshold": 0.99 }, "SEVERE_TOXICITY": {}, "PROFANITY": {},
        },
        "languages": ["en-GB"], "doNotStore": true, "clientToken": "t-1", "sessionId": "s", "communityId": "c",
        "spanAnnotations": true,
    });
    let (status, body) = analyze(&server, &request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!((&body["clientToken"], &body["languages"]), (&json!("t-1"), &json!(["en"])));
    let found = &body["attributeScores"];
    for (attribute, value) in [
        ("TOXICITY", &further["toxicity"]["score"]),
        ("SEVERE_TOXICITY", &further["severe-toxicity"]["score"]),
        ("INSULT", &further["insult"]["score"]),
        ("PROFANITY", &further["profanity"]["score"]),
        ("IDENTITY_ATTACK", &scores["hate"]),
    ] {
        let score = json!({ "value": value, "type": "PROBABILITY" });
        assert_eq!(found[attribute]["summaryScore"], score, "{attribute}: {body}");
        let span = json!([{ "begin": 0, "end": INSULT.chars().count(), "score": score }]);
        assert_eq!(found[attribute]["spanScores"], span);
    }
    assert_eq!(found.get("THREAT"), None, "below its threshold");
}

#[tokio::test]
async fn null_members_count_as_absent() {
    let server = Server::builtin().await;
    let members = json!({ "deadline_ms": null, "on_timeout": null, "thresholds": null, "explain": null, "later": null });
    for body in [
        json!({ "input": CLEAN, "model": null, "infer": null, "user": null }),
        json!({ "input": CLEAN, "infer": members }),
        json!({ "input": [{ "type": "text", "text": CLEAN, "image_url": null }] }),
    ] {
        let (status, reply) = answer(server.post("/v1/moderations").json(&body)).await;
        assert_eq!(
            (status, &reply["results"][0]["flagged"]),
            (StatusCode::OK, &json!(false)),
            "{body}: {reply}"
        );
    }
    let members = json!({ "comment": { "text": INSULT, "type": null }, "requestedAttributes": { "TOXICITY": null },
        "languages": null, "clientToken": null, "doNotStore": null });
    let (status, expected) = analyze(&server, &members).await;
    assert_eq!(status, StatusCode::OK, "{expected}");
    let spelt = json!({ "comment": { "text": INSULT }, "requested_attributes": { "TOXICITY": { "score_type": null } },
        "client_token": "t" });
    let (status, reply) = analyze(&server, &spelt).await;
    assert_eq!(
        (status, &reply["attributeScores"]),
        (StatusCode::OK, &expected["attributeScores"]),
        "{reply}"
    );
    assert_eq!(reply["clientToken"], "t");
}

#[tokio::test]
async fn perspective_errors_have_googles_form() {
    let server = Server::builtin().await;
    for (request, status, word) in [
        (server.get("/v1alpha1/comments:analyze"), StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT"),
        (server.post("/v1alpha1/comments:suggestscore"), StatusCode::NOT_FOUND, "NOT_FOUND"),
        (server.get("/v1alpha1/"), StatusCode::NOT_FOUND, "NOT_FOUND"),
        (
            server.post("/v1alpha1/comments:analyze").header("content-encoding", "gzip"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "INVALID_ARGUMENT",
        ),
    ] {
        let (found, body) = answer(request).await;
        let error = &body["error"];
        assert_eq!((found, &error["status"]), (status, &json!(word)), "{body}");
        assert_eq!(error["code"], status.as_u16(), "{body}");
    }
}

#[tokio::test]
async fn perspective_errors_have_their_own_envelope() {
    let server = Server::builtin().await;
    let ask = |text: &str, attribute: &str, languages: Value| json!({ "comment": { "text": text }, "requestedAttributes": { attribute: {} }, "languages": languages });
    for (body, kind, words) in [
        (ask("", "TOXICITY", json!([])), Some("COMMENT_EMPTY"), "empty"),
        (ask(&"a ".repeat(10_241), "TOXICITY", json!([])), Some("COMMENT_TOO_LONG"), "20482 bytes"),
        (ask("a", "TOXICITY", json!(["ar"])), Some("LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"), "`ar`"),
        (ask("a", "RUDENESS", json!([])), None, "unknown attribute `RUDENESS`"),
        (json!({ "comment": { "text": "a" } }), None, "`requestedAttributes` is empty"),
        (json!([1]), None, "not an analysis request"),
    ] {
        let (status, body) = analyze(&server, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let error = &body["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(400), &json!("INVALID_ARGUMENT")), "{body}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}");
        assert_eq!(error["details"][0]["errorType"].as_str(), kind, "{body}");
    }
}

#[tokio::test]
async fn key_reaches_no_component_by_model_name() {
    let hash = infer_config::keys::KeyHash::of("secret");
    let server = Server::start(Arc::new(load(&format!(
        "[keys.client]\nhash = \"{hash}\"\ncomponents = [\"strict\"]\n\
         [models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = {{ text = \"toxic-bilstm\" }}\n\
         [components.strict]\nsource = \"builtin:moderate\"\nroute = \"/strict\"\n\
         models = {{ text = \"toxic-bilstm\" }}\n"
    ))))
    .await;
    for (path, body, status) in [
        ("/v1/moderations", json!({ "input": CLEAN, "model": "strict" }), StatusCode::OK),
        ("/v1/moderations", json!({ "input": CLEAN }), StatusCode::FORBIDDEN),
        (
            "/v1alpha1/comments:analyze",
            json!({ "comment": { "text": CLEAN }, "requestedAttributes": { "TOXICITY": {} } }),
            StatusCode::FORBIDDEN,
        ),
    ] {
        let (found, answer) = answer(server.post(path).bearer_auth("secret").json(&body)).await;
        assert_eq!(found, status, "{path}: {answer}");
    }
    let (status, _) = answer(server.post("/v1/moderations").json(&json!({ "input": CLEAN }))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // Perspective's clients send their key as `key` or `x-goog-api-key`, on their route only, and
    // parse Google's error format.
    let analyze = |query: &str| server.post(&format!("/v1alpha1/comments:analyze{query}")).json(&json!({}));
    let cases = [
        (analyze(""), StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        (analyze("?key=wrong"), StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        (analyze("?alt=json&key=secret"), StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        (analyze("").header("x-goog-api-key", "secret"), StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
    ];
    for (request, status, word) in cases {
        let (found, body) = answer(request).await;
        assert_eq!((found, &body["error"]["status"]), (status, &json!(word)), "{body}");
    }
    let elsewhere = server.post("/v1/moderations?key=secret").json(&json!({ "input": CLEAN }));
    assert_eq!(answer(elsewhere).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn unjudged_answer_is_not_replayed() {
    // The guest loops and is stopped at the deadline: `on_timeout` decides the answer.
    let server = Server::start(Arc::new(load(&format!(
        "[components.loop]\nsource = {:?}\nroute = \"/moderate\"\nsettings = {{ attack = \"loop\" }}\n\
         limits = {{ guest_ms = 60000 }}\n",
        hostile()
    ))))
    .await;
    let body = json!({ "input": "a", "infer": { "deadline_ms": 50, "on_timeout": "review" } });
    let ask = async || {
        let response =
            server.post("/v1/moderations").header("idempotency-key", "k").json(&body).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    let (one, other) = (ask().await, ask().await);
    assert_eq!((one.0, other.0), (StatusCode::OK, StatusCode::OK), "{one:?}");
    assert_eq!(one.1["infer"]["late"], json!([0]));
    assert_ne!(one.1["id"], other.1["id"], "each request got a separate answer");
}
