//! A gate in front of another server: it judges each uploaded image, and forwards the permitted
//! ones.
//!
//! It needs one model named `image`: any image classifier. A request with an image as its body goes
//! to the server at `upstream`, and that server's response is passed on. A refused image is
//! answered with 422, and the upstream server never receives it. Without an upstream the gate
//! answers with its decision. Long images and animations are judged by several views, and the
//! highest score counts; if the views leave a part out, the header `x-infer-seen` reports it to the
//! upstream server.
//!
//! Settings: `upstream`, the URL before the request's path; `refuse`, labels of the model, one per
//! line (default `Porn` and `Hentai`); `threshold`, the minimum score at which one of them is
//! refused (default 0.5); `image.max_views`, the maximum number of views of an image (default 5);
//! `max_pixels`, the maximum number of pixels of a decoded image (default 16,000,000).

use guest_sdk::Fault;
use guest_sdk::http::{Handler, Headers, HttpError, Method, Request, Respond, send};
use guest_sdk::image::{DEFAULT_MAX_PIXELS, DEFAULT_MAX_VIEWS, Recipe, Viewer};
use guest_sdk::json::push_string;
use guest_sdk::log;
use guest_sdk::nn::{Model, f32_tensor};
use guest_sdk::settings::Settings;

const JSON: &str = "application/json";

/// Header with the part of an image that was judged, for the upstream server, if not all of it.
const SEEN: &str = "x-infer-seen";

/// Default of `refuse`.
const REFUSED: &str = "Porn\nHentai";

struct Gate;

impl Handler for Gate {
    fn handle(request: Request, respond: Respond) {
        if let Err(broken) = answer(request, respond) {
            log::warn(&format!("the response broke off: {broken}"));
        }
    }
}

guest_sdk::export_handler!(Gate);

fn answer(mut request: Request, respond: Respond) -> Result<(), HttpError> {
    if !matches!(request.method, Method::Post | Method::Put) {
        return respond.send(405, JSON, error("expected POST or PUT with an image for a body").as_bytes());
    }
    if let Some(message) = unreadable(&request) {
        return respond.send(415, JSON, error(&message).as_bytes());
    }
    let image = request.read()?;
    let (settings, judgement) = match Settings::read().and_then(|settings| {
        let judgement = judge(&settings, &image)?;
        Ok((settings, judgement))
    }) {
        Ok(judged) => judged,
        Err(fault) => return refuse(&fault, respond),
    };
    let Judgement { label, score, is_refused, seen } = judgement;
    if is_refused {
        let mut body = String::from("{\"refused\":");
        push_string(&mut body, &label);
        body.push_str(&format!(",\"score\":{score}}}"));
        return respond.send(422, JSON, body.as_bytes());
    }
    let Some(upstream) = settings.text("upstream") else {
        let mut body = format!("{{\"refused\":null,\"score\":{score}");
        if let Some(seen) = seen {
            body.push_str(",\"seen\":");
            push_string(&mut body, &seen);
        }
        body.push('}');
        return respond.send(200, JSON, body.as_bytes());
    };
    let mut forwarded: Headers = std::mem::take(&mut request.headers)
        .into_iter()
        .filter(|(name, _)| {
            ["accept", "content-type", "content-length", "x-request-id"].contains(&name.as_str())
        })
        .collect();
    forwarded.extend(seen.map(|seen| (SEEN.to_owned(), seen.into_bytes())));
    let url = format!("{}{}", upstream.trim_end_matches('/'), request.path);
    match send(&request.method, &url, &forwarded, &image) {
        Ok(mut response) => {
            let mut writer = respond.begin(response.status, &response.headers)?;
            while let Some(piece) = response.body.read()? {
                writer.write(&piece)?;
            }
            writer.finish()
        }
        Err(broken) => {
            log::error(&format!("no response from `{upstream}`: {broken}"));
            respond.send(502, JSON, error("the upstream server did not respond").as_bytes())
        }
    }
}

/// Returns the reason why the request's headers announce a body that cannot be judged.
fn unreadable(request: &Request) -> Option<String> {
    let coding = request.header("content-encoding").unwrap_or("identity").trim();
    if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
        let coding: String = coding.chars().take(32).collect();
        return Some(format!("the body's `content-encoding` is `{coding}`; send the image uncompressed"));
    }
    let kind = request.header("content-type").unwrap_or_default().trim_start();
    let is_form = kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    is_form.then(|| "the body is a form; send the image itself as the body".to_owned())
}

/// The model's judgement of an image: the likeliest of the refused labels.
struct Judgement {
    label: String,
    score: f32,
    is_refused: bool,
    /// The part of the image that the model saw, if not all of it.
    seen: Option<String>,
}

fn judge(settings: &Settings, image: &[u8]) -> Result<Judgement, Fault> {
    let threshold = settings.get("threshold", 0.5_f32)?;
    let refused: Vec<_> = settings.text("refuse").unwrap_or(REFUSED).lines().map(str::trim).collect();
    let Some(card) = settings.card("image") else {
        let message = "no model named `image` is configured for this component; give it an image classifier";
        return Err(Fault::Internal(message.to_owned()));
    };
    let labels = card.labels()?;
    if let Some(unknown) = refused.iter().find(|label| !labels.contains(label)) {
        let message = format!("setting `refuse`: the model has no label `{unknown}`, expected of {labels:?}");
        return Err(Fault::Internal(message));
    }
    let recipe = Recipe::from_card(&card)?;
    let max_views = settings.get("image.max_views", DEFAULT_MAX_VIEWS)?;
    let mut viewer = Viewer::new(&recipe, settings.get("max_pixels", DEFAULT_MAX_PIXELS)?, max_views);
    let mut model = None;
    let (mut worst, mut pixels) = ((0, f32::NEG_INFINITY), Vec::new());
    let seen = viewer.show(image, &mut |view| {
        pixels.clear();
        recipe.normalise(view, &mut pixels);
        let input = f32_tensor(&recipe.shape(1), &pixels);
        let model = match &mut model {
            Some(model) => model,
            none => none.insert(Model::open("image")?),
        };
        let outputs = model.run([(card.require("input.name")?, input)])?;
        let scores = outputs.scores(card.require("output.name")?, 1, labels.len() as u32)?;
        for (index, &score) in scores.iter().enumerate() {
            if score > worst.1 && refused.contains(&labels[index]) {
                worst = (index, score);
            }
        }
        Ok(())
    })?;
    let label = labels.get(worst.0).copied().unwrap_or_default();
    let score = if worst.1.is_finite() { worst.1 } else { 0.0 };
    let seen = (!seen.is_whole()).then(|| seen.to_string());
    Ok(Judgement { label: label.to_owned(), score, is_refused: score >= threshold, seen })
}

/// Answers with the error of the request or of this server.
fn refuse(fault: &Fault, respond: Respond) -> Result<(), HttpError> {
    let (status, message) = match fault {
        Fault::InvalidInput(message) => (400, message.as_str()),
        Fault::TooLarge(message) => (413, message.as_str()),
        Fault::UnsupportedMedia(message) => (415, message.as_str()),
        Fault::Model(failure) => {
            log::error(&format!("model `{}`: {}", failure.model, failure.message));
            (503, "the model did not answer; retry the request")
        }
        Fault::Internal(message) => {
            log::error(message);
            (500, "the request could not be answered; the server's log says why")
        }
    };
    respond.send(status, JSON, error(message).as_bytes())
}

fn error(message: &str) -> String {
    let mut body = String::from("{\"error\":");
    push_string(&mut body, message);
    body.push('}');
    body
}
