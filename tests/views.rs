use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, golden, guest, load, photo, repository};

fn drawn(name: &str) -> Vec<u8> {
    std::fs::read(repository().join("tests/data/views").join(name)).unwrap()
}

fn parts(files: &[Vec<u8>]) -> Value {
    let part = |file: &Vec<u8>| {
        let url = format!("data:image/png;base64,{}", STANDARD.encode(file));
        json!({ "type": "image_url", "image_url": { "url": url } })
    };
    json!({ "input": files.iter().map(part).collect::<Vec<_>>() })
}

/// The verdict on images that are judged together: the action, the score for `sexual`, and the gap
/// about views.
async fn judge(server: &Server, files: &[Vec<u8>]) -> (String, f64, Option<String>) {
    let (action, [sexual, _], gap) = judge_both(server, files).await;
    (action, sexual, gap)
}

/// As [`judge`], with the scores for `sexual` and `violence/graphic`.
async fn judge_both(server: &Server, files: &[Vec<u8>]) -> (String, [f64; 2], Option<String>) {
    let response = server.post("/moderate").json(&parts(files)).send().await.unwrap();
    let action = response.headers()["x-infer-action"].to_str().unwrap().to_owned();
    let (status, body): (_, Value) = (response.status(), response.json().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{body}");
    let degraded = body["infer"]["degraded"].as_array().unwrap();
    let gap = degraded.iter().find(|gap| gap["category"] == "sexual").map(|gap| {
        assert_eq!(gap["input_types"], json!(["image"]), "{body}");
        gap["reason"].as_str().unwrap().to_owned()
    });
    let scores = &body["results"][0]["category_scores"];
    (action, ["sexual", "violence/graphic"].map(|category| scores[category].as_f64().unwrap()), gap)
}

async fn serve(setting: &str) -> Server {
    let models = "safety = \"image-safety\" }";
    // Long limits for a busy machine: this tests the verdicts, not the time.
    let limits = "limits = { guest_ms = 30000, compute_ms = 60000 }";
    let config = infer_config::CONFIG
        .replace("[server]", "[server]\ndeadline_ms = 60000")
        .replace(models, &format!("{models}\n{limits}\nsettings = {{ {setting} }}"));
    Server::start(load(&config).into()).await
}

#[tokio::test]
async fn views_match_an_independent_run() {
    let server = Server::builtin().await;
    let golden = golden();
    let tolerance = golden["images"][1]["photo_tolerance"].as_f64().unwrap();
    let cases = golden["views"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let image = std::fs::read(repository().join("tests/data").join(file)).unwrap();
        let (action, [score, graphic], gap) = judge_both(&server, &[image]).await;
        let expected = case["sexual"].as_f64().unwrap();
        assert!((score - expected).abs() <= tolerance, "{file}: {score}, expected {expected}");
        let expected_graphic = case["violence/graphic"].as_f64().unwrap();
        let difference = (graphic - expected_graphic).abs();
        assert!(difference <= tolerance, "{file}: {graphic}, expected {expected_graphic}");
        let in_part = file.contains("sixty-frames") || file.contains("panorama");
        assert_eq!(gap.is_some(), in_part, "{file}: {gap:?}");
        let expected = match (expected > 0.5, in_part) {
            (true, _) => "block",
            (false, true) => "review",
            (false, false) => "allow",
        };
        assert_eq!(action, expected, "{file}");
    }
}

#[tokio::test]
async fn later_frame_blocks_in_every_format() {
    let server = Server::builtin().await;
    for name in
        ["second-frame.gif", "second-frame.png", "second-frame.webp", "second-frame-lossy.webp", "cover.png"]
    {
        let (action, score, gap) = judge(&server, &[drawn(name)]).await;
        assert_eq!((action.as_str(), gap), ("block", None), "{name}");
        assert!(score > 0.9, "{name}: {score}");
    }
}

#[tokio::test]
async fn both_ends_of_long_images_are_judged() {
    let server = Server::builtin().await;
    for name in ["wide.png", "tall-top.png", "tall-bottom.jpg", "second-frame-wide.gif"] {
        let (action, score, gap) = judge(&server, &[drawn(name)]).await;
        assert_eq!((action.as_str(), gap), ("block", None), "{name}");
        assert!(score > 0.8, "{name}: {score}");
    }
}

#[tokio::test]
async fn unseen_frames_ask_for_review() {
    let server = serve("\"image.max_views\" = 1").await;
    let (action, score, gap) = judge(&server, &[drawn("sixty-frames.gif")]).await;
    assert_eq!(action, "review");
    assert!(score < 0.1, "{score}");
    assert_eq!(gap.unwrap(), "image 1: the views show 1 of 60 frames");
    let images = [photo("camera-grey.jpg"), drawn("panorama.png"), drawn("second-frame-wide.gif")];
    let (action, _, gap) = judge(&server, &images).await;
    assert_eq!(action, "review");
    let expected =
        "image 2: the views show 8 % of its length; image 3: the views show 1 of 2 frames, 56 % of each";
    assert_eq!(gap.unwrap(), expected);
    let (action, _, gap) = judge(&server, &[photo("camera-grey.jpg")]).await;
    assert_eq!((action.as_str(), gap), ("allow", None));
}

#[tokio::test]
async fn cut_animation_is_judged_in_part() {
    let server = Server::builtin().await;
    let mut file = drawn("sixty-frames.webp");
    file.truncate(file.len() - 2_000);
    let (action, _, gap) = judge(&server, &[file]).await;
    assert_eq!(action, "review");
    assert!(gap.as_ref().unwrap().contains("cannot be decoded"), "{gap:?}");
}

#[tokio::test]
async fn damaged_jpeg_needs_review() {
    let server = Server::builtin().await;
    let good = photo("coffee.jpg");
    let (action, _, gap) = judge(&server, std::slice::from_ref(&good)).await;
    assert_eq!((action.as_str(), gap), ("allow", None));
    let (action, _, gap) = judge(&server, &[good[..good.len() * 3 / 10].to_vec()]).await;
    assert_eq!(action, "review");
    assert!(gap.as_ref().unwrap().contains("the file is damaged"), "{gap:?}");
}

#[tokio::test]
async fn each_view_costs_one_run() {
    let server = serve("\"image.max_views\" = 60").await;
    for name in ["sixty-frames.png", "sixty-frames.webp", "sixty-frames.gif"] {
        let (action, score, gap) = judge(&server, &[drawn(name)]).await;
        assert_eq!((action.as_str(), gap), ("block", None), "{name}");
        assert!(score > 0.9, "{name}: {score}");
    }
}

#[tokio::test]
async fn view_limit_of_zero_is_rejected() {
    let server = serve("\"image.max_views\" = 0").await;
    let (status, body) = answer(server.post("/moderate").json(&parts(&[photo("coffee.jpg")]))).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
}

/// A GIF of `width` × `height` pixels with `frames` frames, each of `size` and placed `at`.
fn gif(width: u16, height: u16, frames: usize, size: [u16; 2], at: [u16; 2]) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    let numbers =
        |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    file.extend(numbers(&[width, height]));
    file.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    let mut frame = vec![0x2c];
    frame.extend(numbers(&[at[0], at[1], size[0], size[1]]));
    // Codes of two bits: clear, the first colour, end.
    frame.extend([0, 2, 2, 0x44, 0x01, 0]);
    file.extend(frame.repeat(frames));
    file.push(0x3b);
    file
}

#[tokio::test]
async fn hostile_animations_are_bounded() {
    let server = serve("").await;
    let mut webp = drawn("second-frame-lossy.webp");
    let start = webp.windows(3).position(|bytes| bytes == [0x9d, 0x01, 0x2a]).unwrap();
    webp[start + 3..][..4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let cases = [
        ("ten thousand frames", gif(64, 64, 10_000, [1, 1], [0, 0])),
        ("frames outside", gif(64, 64, 20, [1, 1], [60_000, 60_000])),
        ("frames without a pixel", gif(64, 64, 20, [0, 0], [0, 0])),
        ("frames larger than the canvas", gif(8, 8, 20, [65_535, 65_535], [0, 0])),
        ("frames as large as memory", gif(8, 8, 20, [5_000, 4_000], [0, 0])),
        ("a huge canvas", gif(65_535, 65_535, 20, [1, 1], [0, 0])),
        ("a large canvas", gif(2_000, 2_000, 20, [1, 1], [1, 1])),
        ("a canvas that holds several times", gif(1_600, 1_600, 200, [1_599, 1_599], [1, 1])),
        ("a picture larger than its canvas", webp),
    ];
    for (name, file) in cases {
        let (status, body) = answer(server.post("/moderate").json(&parts(&[file]))).await;
        assert!(status == StatusCode::OK || status.is_client_error(), "{name}: {status} {body}");
    }
    assert_eq!(judge(&server, &[photo("coffee.jpg")]).await.0, "allow");
}

#[tokio::test]
async fn gate_judges_every_view() {
    let config = format!(
        "[models.nsfw]\nsource = \"builtin:nsfwjs-mobilenet_v2-int8\"\n[components.gate]\nsource = {:?}\n\
         route = \"/gate/...\"\nmodels = {{ image = \"nsfw\" }}\n",
        guest("gate")
    );
    let server = Server::start(load(&config).into()).await;
    for name in ["second-frame.gif", "sixty-frames.png", "tall-bottom.jpg"] {
        let (status, body) = answer(server.post("/gate/a").body(drawn(name))).await;
        assert_eq!(
            (status, &body["refused"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("Porn")),
            "{name}: {body}"
        );
    }
    let (status, body) = answer(server.post("/gate/a").body(drawn("panorama.png"))).await;
    assert_eq!((status, &body["seen"]), (StatusCode::OK, &json!("41 % of its length")), "{body}");
}
