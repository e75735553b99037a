//! Scores, prompts and bounds of guards, on small random models.

use std::path::{Path, PathBuf};

use super::*;
use crate::card::Format;
use crate::model::Capacity;
use crate::weights::Bytes;

const CHOICES: [&str; 3] = ["safe", "unsafe\nS1", "unsafe\nS2"];

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/language/phi3-q4_k.gguf")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn model() -> LanguageModel {
    model_of(Bytes::map(&file()).unwrap())
}

fn model_of(bytes: Bytes) -> LanguageModel {
    let capacity = Capacity { context_tokens: 256, kv_bytes: 8 << 20, ..Capacity::of(Format::Gguf) };
    LanguageModel::load("guard", vec![bytes], None, &capacity).unwrap()
}

/// The model with a template that reads the variable `rule`.
fn model_with_rule() -> LanguageModel {
    const KEY: &[u8] = b"tokenizer.chat_template";
    let template = "{{ bos_token }}{{ rule }}: {{ messages | map(attribute='content') | join(' ') }}{% if add_generation_prompt %} -{% endif %}";
    let mut bytes = std::fs::read(file()).unwrap();
    let key = bytes.windows(KEY.len()).position(|bytes| bytes == KEY).unwrap();
    // The type of the value, 4 bytes, and its length, 8 bytes.
    let start = key + KEY.len() + 12;
    let length = u64::from_le_bytes(bytes[start - 8..start].try_into().unwrap()) as usize;
    let comment = format!("{{#{}#}}", " ".repeat(length - template.len() - 4));
    bytes[start..start + length].copy_from_slice([template, &comment].concat().as_bytes());
    model_of(Bytes::Owned(bytes))
}

fn question(labels: &[&str], choices: &[&str]) -> Question {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    let choices = choices.iter().map(|&choice| vec![choice.to_owned()]).collect();
    Question { labels, choices, clear: None, template: Default::default(), pair: None }
}

fn guard(questions: &[Question]) -> Guard {
    Guard::new("guard", model(), questions).unwrap()
}

async fn ask(guard: &Guard, texts: &Value, params: &Value) -> Result<Reply, RunError> {
    let tensor =
        |name: &str, json: &Value| (name.to_owned(), Tensor::from_bytes(json.to_string().into_bytes()));
    let inputs = vec![tensor("texts", texts), tensor("params", params)];
    guard.run(&Session::default(), inputs, soon()).await
}

fn scores(reply: &Reply) -> Vec<f32> {
    assert_eq!(reply.outputs[0].0, "scores");
    reply.outputs[0].1.to_vec::<f32>().unwrap()
}

fn metadata(reply: &Reply) -> Value {
    serde_json::from_slice(reply.outputs[1].1.data()).unwrap()
}

fn near(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-4)
}

#[tokio::test]
async fn scores_are_probabilities_among_the_choices() {
    let guard = guard(&[question(&["safe", "S1", "S2"], &CHOICES)]);
    let reply = ask(&guard, &serde_json::json!(["a red book", "the river"]), &serde_json::json!({})).await;
    let reply = reply.unwrap();
    assert_eq!(reply.outputs[0].1.shape(), [2, 3]);
    let found = scores(&reply);
    // The same question as tokens of a prompt, without the guard.
    let model = model();
    for (text, found) in ["a red book", "the river"].into_iter().zip(found.chunks_exact(3)) {
        let request = Request {
            prompt: Prompt::Tokens(
                model.chat_tokens(&turns(&[text]), &TemplateArguments::default()).unwrap(),
            ),
            choices: Some(CHOICES.map(str::to_owned).to_vec()),
            params: Params::default(),
        };
        let answer = model.run(&mut Session::default(), request, None, soon()).await.unwrap();
        let Output::Scores(logprobs) = answer.output else { panic!("text") };
        let sum: f32 = logprobs.iter().map(|logprob| logprob.exp()).sum();
        let expected: Vec<f32> = logprobs.iter().map(|logprob| logprob.exp() / sum).collect();
        assert!(near(found, &expected), "{found:?}, expected {expected:?}");
    }
    let facts = metadata(&reply);
    assert_eq!(
        (&facts["truncated"], &facts["windows"]),
        (&serde_json::json!([false, false]), &serde_json::json!([1, 1]))
    );
}

#[tokio::test]
async fn questions_share_the_prompt() {
    let one = question(&["safe", "S1", "S2"], &CHOICES);
    let two = question(&["yes", "no"], &["Yes", "No"]);
    let texts = serde_json::json!(["a red book by the river"]);
    let params = serde_json::json!({});
    let both = guard(&[one.clone(), two.clone()]);
    let reply = ask(&both, &texts, &params).await.unwrap();
    let usage = reply.usage.unwrap();
    // All of the second prompt but its last token, at least, was computed for the first.
    assert!(usage.cached_tokens + 1 >= usage.prompt_tokens / 2, "{usage:?}");
    let mut expected = scores(&ask(&guard(&[one]), &texts, &params).await.unwrap());
    expected.extend(scores(&ask(&guard(&[two]), &texts, &params).await.unwrap()));
    assert!(near(&scores(&reply), &expected));
    // A later session of the component shares the beginning only.
    let other = ask(&both, &serde_json::json!(["the market"]), &params).await.unwrap();
    assert!(other.usage.unwrap().cached_tokens >= both.questions[0].forms[0].prefix.len());
}

#[tokio::test]
async fn questions_set_variables_of_the_template() {
    let rules = ["no insults", "no threats"];
    let questions = rules.map(|rule| Question {
        template: Map::from_iter([("rule".to_owned(), rule.into())]),
        ..question(&[&format!("{rule}: yes"), &format!("{rule}: no")], &["Yes", "No"])
    });
    let guard = Guard::new("guard", model_with_rule(), &questions).unwrap();
    let reply = ask(&guard, &serde_json::json!(["a red book"]), &serde_json::json!({ "raw": true })).await;
    let model = model_with_rule();
    let mut expected = Vec::new();
    for rule in rules {
        let prompt = Prompt::Text(format!("{rule}: a red book -"));
        let choices = Some(["Yes", "No"].map(str::to_owned).to_vec());
        let request = Request { prompt, choices, params: Params::default() };
        let answer = model.run(&mut Session::default(), request, None, soon()).await.unwrap();
        let Output::Scores(logprobs) = answer.output else { panic!("text") };
        expected.extend(logprobs);
    }
    let found = scores(&reply.unwrap());
    assert!(near(&found, &expected), "{found:?}, expected {expected:?}");
    assert!(!near(&found[..2], &found[2..]));
}

#[tokio::test]
async fn long_texts_are_read_in_part() {
    let guard = guard(&[question(&["yes", "no"], &["Yes", "No"])]);
    let long = "the red book ".repeat(500);
    let texts = serde_json::json!([long, "short"]);
    let reply = ask(&guard, &texts, &serde_json::json!({})).await.unwrap();
    let facts = metadata(&reply);
    assert_eq!(facts["truncated"], serde_json::json!([true, false]));
    assert!(facts["tokens"][0].as_u64().unwrap() > 500, "{facts}");
    let error = ask(&guard, &texts, &serde_json::json!({ "truncate": false })).await.unwrap_err().to_string();
    assert!(error.contains("text 0 has") && error.contains("shorten it"), "{error}");
    let error =
        ask(&guard, &serde_json::json!(["a".repeat(300_000)]), &serde_json::json!({})).await.unwrap_err();
    assert!(matches!(&error, RunError::TooLarge { .. }), "{error}");
    let error =
        ask(&guard, &serde_json::json!([[1, 2]]), &serde_json::json!({})).await.unwrap_err().to_string();
    assert!(error.contains("expected a string or a pair of strings"), "{error}");
}

#[tokio::test]
async fn pairs_are_turns_of_user_and_assistant() {
    let guard = guard(&[question(&["yes", "no"], &["Yes", "No"])]);
    let pair = serde_json::json!([["where is it", "by the river"], "where is it"]);
    let reply = ask(&guard, &pair, &serde_json::json!({ "raw": true })).await.unwrap();
    let found = scores(&reply);
    assert!(found.iter().all(|logprob| *logprob < 0.0) && !near(&found[..2], &found[2..]), "{found:?}");
}

#[tokio::test]
async fn pairs_have_variables_of_their_own() {
    let rule = |rule: &str| Map::from_iter([("rule".to_owned(), rule.into())]);
    let yes = |template: &str, pair: Option<&str>| {
        let (template, pair) = (rule(template), pair.map(rule));
        Guard::new(
            "guard",
            model_with_rule(),
            &[Question { template, pair, ..question(&["yes", "no"], &["Yes", "No"]) }],
        )
        .unwrap()
    };
    let (texts, raw) =
        (serde_json::json!([["where is it", "by the river"]]), serde_json::json!({ "raw": true }));
    let both = scores(&ask(&yes("no insults", Some("no threats")), &texts, &raw).await.unwrap());
    let threats = scores(&ask(&yes("no threats", None), &texts, &raw).await.unwrap());
    let insults = scores(&ask(&yes("no insults", None), &texts, &raw).await.unwrap());
    assert!(near(&both, &threats) && !near(&both, &insults), "{both:?} {threats:?} {insults:?}");
}

#[tokio::test]
async fn choices_of_a_label_are_added() {
    let plain = question(&["safe", "S1", "S2"], &CHOICES);
    let choices =
        vec![vec![CHOICES[0].to_owned()], CHOICES[1..].iter().map(|&choice| choice.to_owned()).collect()];
    let joined =
        Question { labels: ["safe", "unsafe"].map(str::to_owned).to_vec(), choices, ..plain.clone() };
    let texts = serde_json::json!(["a red book"]);
    for raw in [false, true] {
        let params = serde_json::json!({ "raw": raw });
        let plain = scores(&ask(&guard(std::slice::from_ref(&plain)), &texts, &params).await.unwrap());
        let joined = scores(&ask(&guard(std::slice::from_ref(&joined)), &texts, &params).await.unwrap());
        let sum = if raw { (plain[1].exp() + plain[2].exp()).ln() } else { plain[1] + plain[2] };
        assert!(near(&joined, &[plain[0], sum]), "{plain:?} {joined:?}");
    }
}

#[test]
fn choices_that_begin_another_are_rejected() {
    let error = Guard::new("guard", model(), &[question(&["one", "both"], &["a", "a b"])]).err().unwrap();
    let message = error.to_string();
    assert!(message.contains("the tokens of the choice \"a b\" begin with those of \"a\""), "{message}");
}

#[test]
fn scores_are_at_most_one() {
    let forms = || Form { arguments: TemplateArguments::default(), prefix: Arc::default() };
    let asked = Asked {
        choices: Vec::new(),
        labels: (0..14).flat_map(|label| [label, label]).collect(),
        clear: Some(0),
        forms: [forms(), forms()],
    };
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..1_000 {
        let mut logprobs: Vec<f32> = (0..28).map(|_| -3.0 * random.f32()).collect();
        logprobs[..2].fill(-30.0);
        let scores = asked.scores(&mut logprobs, false);
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)) && scores.len() == 14, "{scores:?}");
        assert!(scores[1..].iter().any(|score| *score > 0.999), "{scores:?}");
    }
    assert_eq!(log_sum(&[f32::NEG_INFINITY; 2]), f32::NEG_INFINITY);
}

#[test]
fn likeliest_reason_has_the_probability_of_all() {
    let mut scores = [0.25, 0.5, 0.125, 0.125];
    share(&mut scores, 0);
    assert_eq!(scores, [0.25, 0.75, 0.1875, 0.1875]);
    let mut clear = [0.0, 1.0];
    share(&mut clear, 1);
    assert_eq!(clear, [0.0, 1.0]);
}
