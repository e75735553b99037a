use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_config::keys::KeyHash;
use infer_engine::{DType, Tensor};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{BILSTM, Server, answer, load, words_section};

const MODEL: &str = "words";
const INFER: &str = "/v2/models/words/infer";

/// Two rows of token ids, and the model's own output for them.
async fn rows() -> (Vec<i32>, Vec<i32>, Tensor) {
    let model = &BILSTM.models[MODEL];
    let input = &model.card().inputs[0];
    let width = input.shape.len();
    assert_eq!((input.dtype, width), (DType::I32, 2), "the test sends rows of ids");
    let columns: usize = 100;
    let ids: Vec<i32> = (0..2 * columns as i32).map(|at| at * 7 % 900).collect();
    let tensor = Tensor::from_slice(&[2, columns], &ids).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let reply = model.run(vec![(input.name.clone(), tensor)], deadline).await.unwrap();
    (vec![2, columns as i32], ids, reply.outputs[0].1.clone())
}

fn input_name() -> &'static str {
    &BILSTM.models[MODEL].card().inputs[0].name
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[tokio::test]
async fn server_and_models_describe_themselves() {
    let server = Server::start(BILSTM.clone()).await;
    let (status, body) = answer(server.get("/v2")).await;
    assert_eq!((status, &body["extensions"]), (StatusCode::OK, &json!(["binary_tensor_data"])));
    assert_eq!(answer(server.get("/v2/health/live")).await.0, StatusCode::OK);
    assert_eq!(answer(server.get("/v2/health/ready")).await.0, StatusCode::OK);
    for path in ["/v2/models/words", "/v2/models/words/versions/1"] {
        let (status, body) = answer(server.get(path)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!((&body["name"], &body["versions"]), (&json!(MODEL), &json!(["1"])));
        assert_eq!(body["inputs"][0]["name"], input_name());
        assert_eq!(
            (&body["inputs"][0]["datatype"], &body["inputs"][0]["shape"][0]),
            (&json!("INT32"), &json!(-1))
        );
    }
    let (_, body) = answer(server.get("/v2/models/words/ready")).await;
    assert_eq!(body, json!({ "name": MODEL, "ready": true }));
}

#[tokio::test]
async fn tensors_are_exchanged_as_json_and_binary() {
    let server = Server::start(BILSTM.clone()).await;
    let (shape, ids, expected) = rows().await;
    let expected = floats(expected.data());
    let nested: Vec<&[i32]> = ids.chunks(100).collect();
    for data in [json!(ids), json!(nested)] {
        let input = json!({ "name": input_name(), "shape": shape, "datatype": "INT32", "data": data });
        let (status, body) = answer(server.post(INFER).json(&json!({ "id": "7", "inputs": [input] }))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!((&body["id"], &body["model_name"]), (&json!("7"), &json!(MODEL)));
        assert_eq!(body["parameters"]["hash"], BILSTM.models[MODEL].hash());
        let reply: Vec<f32> = serde_json::from_value(body["outputs"][0]["data"].clone()).unwrap();
        assert_eq!(reply, expected);
    }
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let parameters = json!({ "binary_data_size": bytes.len() });
    let input =
        json!({ "name": input_name(), "shape": shape, "datatype": "INT32", "parameters": parameters });
    let head = json!({ "inputs": [input], "parameters": { "binary_data_output": true } }).to_string();
    let length = head.len().to_string();
    let request = server.post(INFER).header("inference-header-content-length", length);
    let response = request.body([head.as_bytes(), &bytes].concat()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let length: usize =
        response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let body = response.bytes().await.unwrap();
    let head: Value = serde_json::from_slice(&body[..length]).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], body.len() - length);
    assert_eq!(floats(&body[length..]), expected);
}

#[tokio::test]
async fn errors_are_one_sentence() {
    let server = Server::start(BILSTM.clone()).await;
    let input = |changes: Value| {
        let mut input = json!({ "name": input_name(), "shape": [1, 2], "datatype": "INT32", "data": [1, 2] });
        input.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({ "inputs": [input] })
    };
    let cases = [
        (input(json!({ "datatype": "BYTES" })), "datatype `BYTES` is for the input `texts` of a text model"),
        (input(json!({ "datatype": "STRING" })), "datatype `STRING` is not one of FP16"),
        (input(json!({ "datatype": "FP32" })), "is f32 (1, 2), expected i32 (N, 100)"),
        (input(json!({ "shape": [1, 3] })), "`data` has 2 elements, its shape 3"),
        (input(json!({ "shape": [u64::MAX, 2] })), "its size overflows"),
        (input(json!({ "data": [1, "x"] })), "expected numbers"),
        (input(json!({ "parameters": { "binary_data_size": 16 } })), "both `data` and `binary_data_size`"),
        (input(json!({ "data": null, "parameters": { "binary_data_size": 16 } })), "but only 0 bytes follow"),
        (
            input(json!({ "data": null, "parameters": { "binary_data_size": u64::MAX } })),
            "but only 0 bytes follow",
        ),
        (input(json!({ "name": "other" })), "other"),
        (json!({ "inputs": [], "outputs": [{ "name": "x" }] }), "unknown output `x`"),
        (json!({ "inputs": "x" }), "the body is not an inference request"),
        (json!({ "inputs": [] }), input_name()),
    ];
    let outside = vec![i32::MAX; 100];
    let outside = input(json!({ "shape": [1, 100], "data": outside }));
    let outside = (outside, "the values of the inputs do not fit the model");
    for (body, expected) in cases.into_iter().chain([outside]) {
        let (status, reply) = answer(server.post(INFER).json(&body)).await;
        let message = reply["error"].as_str().unwrap_or_else(|| panic!("no sentence: {reply}"));
        assert!(
            status == StatusCode::BAD_REQUEST && message.contains(expected),
            "{body}: {status} {message}"
        );
    }
    let elsewhere = [
        ("/v2/models/nothing/infer", StatusCode::NOT_FOUND, "unknown model `nothing`"),
        ("/v2/models/words/versions/2/infer", StatusCode::NOT_FOUND, "has no version `2`"),
    ];
    for (path, expected, sentence) in elsewhere {
        let (status, reply) = answer(server.post(path).json(&input(json!({})))).await;
        assert!(status == expected && reply["error"].as_str().unwrap().contains(sentence), "{path}: {reply}");
    }
    let (status, _) = answer(server.post(INFER).header("content-encoding", "gzip").body("x")).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, reply) =
        answer(server.post(INFER).header("inference-header-content-length", "9").body("{}")).await;
    assert!(
        status == StatusCode::BAD_REQUEST && reply["error"].as_str().unwrap().contains("which has 2"),
        "{reply}"
    );
}

#[tokio::test]
async fn lists_are_bounded_as_they_are_read() {
    let server = Server::start(BILSTM.clone()).await;
    let many = |element: Value, count: usize| Value::Array(vec![element; count]);
    let tensor = |shape| json!({ "name": "x", "shape": shape, "datatype": "INT32", "data": [1] });
    let cases = [
        (json!({ "inputs": [tensor(many(json!(1), 17))] }), "more than 16 axes"),
        (json!({ "inputs": many(tensor(json!([1])), 257) }), "more than 256 tensors"),
        (json!({ "inputs": [], "outputs": many(json!({ "name": "x" }), 257) }), "more than 256 outputs"),
    ];
    for (body, expected) in cases {
        let (status, reply) = answer(server.post(INFER).json(&body)).await;
        let message = reply["error"].as_str().unwrap_or_else(|| panic!("no sentence: {reply}"));
        assert!(status == StatusCode::BAD_REQUEST && message.contains(expected), "{status} {message}");
    }
}

/// Requests of Triton's and KServe's clients that are not supported, and invalid requests.
const NOT_SERVED: [(Method, &str, StatusCode); 22] = [
    (Method::GET, "/v2/", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/stats", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/words/", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/words/config", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/words/stats", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/words/versions/1/config", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/models/words/infer", StatusCode::METHOD_NOT_ALLOWED),
    (Method::POST, "/v2/models/words", StatusCode::METHOD_NOT_ALLOWED),
    (Method::PUT, "/v2", StatusCode::METHOD_NOT_ALLOWED),
    (Method::POST, "/v2/health/live", StatusCode::METHOD_NOT_ALLOWED),
    (Method::GET, "/v2/models/%ff", StatusCode::BAD_REQUEST),
    (Method::GET, "/v2/models/a%20b", StatusCode::NOT_FOUND),
    (Method::POST, "/v2/models/words/generate", StatusCode::NOT_FOUND),
    (Method::POST, "/v2/repository/index", StatusCode::NOT_FOUND),
    (Method::POST, "/v2/repository/models/words/load", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/systemsharedmemory/status", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/cudasharedmemory/status", StatusCode::NOT_FOUND),
    (Method::GET, "/v2/trace/setting", StatusCode::NOT_FOUND),
    (Method::POST, "/v2/logging", StatusCode::NOT_FOUND),
    (Method::GET, "/%762/models", StatusCode::NOT_FOUND),
    (Method::DELETE, "/v2/nothing/at/all", StatusCode::NOT_FOUND),
];

#[tokio::test]
async fn every_error_below_v2_is_a_sentence() {
    let server = Server::start(BILSTM.clone()).await;
    let url = format!("http://{}", server.address());
    let client = reqwest::Client::new();
    for (method, path, expected) in NOT_SERVED {
        let response =
            client.request(method.clone(), format!("{url}{path}")).body("{}").send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, expected, "{method} {path}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| error.len() > 10), "{method} {path}: {body}");
        assert!(headers.contains_key("x-request-id"), "{method} {path}");
        assert_eq!(
            status == StatusCode::METHOD_NOT_ALLOWED,
            headers.contains_key("allow"),
            "{method} {path}"
        );
    }
    // Other routes are unchanged.
    let (status, body) = answer(server.get("/v1/nothing")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

#[tokio::test]
async fn rejections_below_v2_are_sentences() {
    let key = KeyHash::of("secret");
    let server = Server::start(Arc::new(load(&format!(
        "[server]\nmax_body_bytes = 1000\n[keys.client]\nhash = \"{key}\"\nmodels = []\nrate = 7\n\
         {}",
        words_section()
    ))))
    .await;
    let infer = || server.post(INFER).bearer_auth("secret");
    let cases = [
        (server.post(INFER), StatusCode::UNAUTHORIZED, "API key missing"),
        (server.post(INFER).bearer_auth("wrong"), StatusCode::UNAUTHORIZED, "API key"),
        (infer().body("x".repeat(2_000)), StatusCode::PAYLOAD_TOO_LARGE, "1000 bytes"),
        (infer().header("content-encoding", "gzip").body("x"), StatusCode::UNSUPPORTED_MEDIA_TYPE, "`gzip`"),
        (infer().body("{}"), StatusCode::NOT_FOUND, "unknown model"),
    ];
    for (request, expected, words) in cases {
        let (status, body) = answer(request).await;
        let error = body["error"].as_str().unwrap_or_else(|| panic!("no sentence: {body}"));
        assert!(status == expected && error.contains(words), "{status} {error}");
    }
    let mut limited = None;
    for _ in 0..20 {
        let (status, body) = answer(infer().body("{}")).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(body);
            break;
        }
    }
    assert!(limited.unwrap()["error"].is_string());
}

#[tokio::test]
async fn late_body_below_v2_is_a_sentence() {
    let config = format!("[server]\nbody_ms = 200\n{}", words_section());
    let server = Server::start(Arc::new(load(&config))).await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(serde_json::from_str::<Value>(body).unwrap()["error"].is_string(), "{body}");
}

#[tokio::test]
async fn null_members_and_byte_order_marks_are_accepted() {
    let server = Server::start(BILSTM.clone()).await;
    let (shape, ids, _) = rows().await;
    let input =
        json!({ "name": input_name(), "shape": shape, "datatype": "INT32", "data": ids, "parameters": null });
    let body = json!({ "id": null, "parameters": null, "outputs": null, "inputs": [input] }).to_string();
    let (status, reply) = answer(server.post(INFER).body(format!("\u{feff}{body}"))).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    // After the JSON, whose length includes the byte order mark.
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let parameters = json!({ "binary_data_size": bytes.len() });
    let input =
        json!({ "name": input_name(), "shape": shape, "datatype": "INT32", "parameters": parameters });
    let head = format!("\u{feff}{}", json!({ "inputs": [input] }));
    let request = server.post(INFER).header("inference-header-content-length", head.len());
    let (status, binary) = answer(request.body([head.as_bytes(), &bytes].concat())).await;
    assert_eq!((status, &binary["outputs"]), (StatusCode::OK, &reply["outputs"]));
}

#[tokio::test]
async fn texts_are_tensors_of_bytes() {
    const TEXTS: &str = "/v2/models/toxic-bilstm/infer";
    let server = Server::start(BILSTM.clone()).await;
    let (_, facts) = answer(server.get("/v2/models/toxic-bilstm")).await;
    assert_eq!(facts["inputs"], json!([{ "name": "texts", "datatype": "BYTES", "shape": [-1] }]));
    assert_eq!(facts["outputs"][0], json!({ "name": "scores", "datatype": "FP32", "shape": [-1, 6] }));
    let texts = ["you are an idiot", "thank you"];
    let input = json!({ "name": "texts", "shape": [2], "datatype": "BYTES", "data": texts });
    let (status, body) = answer(server.post(TEXTS).json(&json!({ "inputs": [input] }))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let [scores, metadata] = &body["outputs"].as_array().unwrap()[..] else { panic!("{body}") };
    assert_eq!((&scores["name"], &scores["shape"]), (&json!("scores"), &json!([2, 6])));
    assert!(scores["data"][0].as_f64().unwrap() > 0.9 && scores["data"][6].as_f64().unwrap() < 0.1, "{body}");
    let metadata: Value = serde_json::from_str(metadata["data"][0].as_str().unwrap()).unwrap();
    assert_eq!((&metadata["tokens"], &metadata["truncated"]), (&json!([4, 2]), &json!([false, false])));

    let bytes: Vec<u8> = texts
        .iter()
        .flat_map(|text| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat())
        .collect();
    let parameters = json!({ "binary_data_size": bytes.len() });
    let input = json!({ "name": "texts", "shape": [2], "datatype": "BYTES", "parameters": parameters });
    let head = json!({ "inputs": [input], "outputs": [{ "name": "scores" }] }).to_string();
    let request = server.post(TEXTS).header("inference-header-content-length", head.len());
    let (status, binary) = answer(request.body([head.as_bytes(), &bytes].concat())).await;
    assert_eq!((status, &binary["outputs"][0]["data"]), (StatusCode::OK, &scores["data"]));

    let long = json!({ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["you ".repeat(4_000)] });
    let (status, body) = answer(server.post(TEXTS).json(&json!({ "inputs": [long] }))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    assert!(body["error"].as_str().unwrap().contains("windows of 100 tokens, expected at most 64"), "{body}");
}
