//! Prompts of chats: thinking switches of templates, prefixes, and choices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::language::format::Formats;
use crate::language::gguf::Gguf;
use crate::language::inbox::Inbox;
use crate::language::job::Work;
use crate::language::kv::KvPool;
use crate::language::preparation::{Preparation, Prepared};
use crate::language::request::{Message, Params, Prompt, Request, TemplateArguments};
use crate::language::scheduler::Shared;
use crate::language::tokenizer::Tokenizer;
use crate::language::tokenizer::tests::small;
use crate::model::Counters;
use crate::weights::bytes::Bytes;

/// An assistant's turn begins with `a`. Without thoughts, the prompt of an answer ends in an empty
/// one, written as `</s>`; in the manner of SmolLM3, an assistant's turn has none.
const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<s>a{% endif %}{{ m.content }}</s>{% endfor %}\
     {% if add_generation_prompt %}<s>a{% if enable_thinking is defined and not enable_thinking %}</s>{% endif %}{% endif %}";

fn shared() -> Arc<Shared> {
    let file =
        small().text("tokenizer.chat_template", TEMPLATE).bool("tokenizer.ggml.add_space_prefix", false);
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(Bytes::Owned(file.build())).unwrap()).unwrap();
    let (inbox, counters, pool) = (Inbox::new(4), Counters::default(), KvPool::new(1, 16, 1 << 16));
    Arc::new(Shared {
        name: "m".to_owned(),
        inbox,
        counters,
        tokenizer,
        formats: Formats::default(),
        pool,
        sessions: 1,
        max_batch: 1,
    })
}

/// The tokens of a request, and the tokenizer that made them.
fn prepared(request: &Request) -> (Prepared, Arc<Shared>) {
    let (shared, caller) = (shared(), Arc::new(()));
    let preparation = Preparation {
        shared: shared.clone(),
        before: Vec::new(),
        context: 64,
        vocabulary: shared.tokenizer.vocabulary_size(),
        deadline: Instant::now() + Duration::from_secs(60),
        caller: Arc::downgrade(&caller),
    };
    (preparation.run(request).unwrap(), shared)
}

/// The text of `tokens`.
fn text(shared: &Shared, tokens: &[u32]) -> String {
    tokens.iter().map(|token| shared.tokenizer.token_text(*token).unwrap().into_owned()).collect()
}

fn request(turns: &[(&str, &str)], choices: Option<&[&str]>, params: Params) -> Request {
    let turn =
        |&(role, content): &(&str, &str)| Message { role: role.to_owned(), content: content.to_owned() };
    let choices = choices.map(|choices| choices.iter().map(|choice| (*choice).to_owned()).collect());
    Request { prompt: Prompt::Messages(turns.iter().map(turn).collect()), choices, params }
}

/// The text of the prompt, and of each choice after it.
fn texts(choices: Option<&[&str]>, arguments: &str) -> Vec<String> {
    let template_arguments = TemplateArguments::parse(arguments).unwrap();
    let params = Params { template_arguments, ..Params::default() };
    let (prepared, shared) = prepared(&request(&[("user", "ab")], choices, params));
    let prompt = text(&shared, &prepared.prompt);
    match &prepared.work {
        Work::Score(choices) => {
            choices.all().iter().map(|choice| prompt.clone() + &text(&shared, choice)).collect()
        }
        Work::Generate(..) => vec![prompt],
    }
}

#[test]
fn verdicts_follow_an_empty_thought() {
    let choices = Some(&["a", "b"][..]);
    assert_eq!(texts(choices, "{}"), ["<s>ab</s><s>a</s>a", "<s>ab</s><s>a</s>b"]);
    let thoughtful = r#"{"enable_thinking": true}"#;
    assert_eq!(texts(choices, thoughtful), ["<s>ab</s><s>aa", "<s>ab</s><s>ab"]);
}

#[test]
fn generated_answers_think_as_asked() {
    assert_eq!(texts(None, "{}"), ["<s>ab</s><s>a"]);
    assert_eq!(texts(None, r#"{"enable_thinking": false}"#), ["<s>ab</s><s>a</s>"]);
}

#[test]
fn prefix_reaches_into_the_next_message() {
    let prefix = |first: usize, bytes: usize, post: &str| {
        let params = Params { prefix_messages: Some(first), prefix_bytes: bytes, ..Params::default() };
        let (prepared, shared) =
            prepared(&request(&[("user", "b"), ("user", post)], Some(&["a", "b"]), params));
        text(&shared, &prepared.prompt[..prepared.declared])
    };
    assert_eq!(prefix(1, 0, "ba"), "<s>b</s>");
    assert_eq!(prefix(1, 2, "baa"), "<s>b</s>ba");
    // The post and the last letter of the prefix are one token.
    assert_eq!(prefix(1, 2, "bab"), "<s>b</s>b");
    // Neither a post that is shorter than the prefix nor one that begins like a text that may
    // follow it adds to the prefix.
    assert_eq!(prefix(1, 9, "ba"), "<s>b</s>ba");
    assert_eq!(prefix(1, 1, "ba"), "<s>b</s>b");
    assert_eq!(prefix(2, 0, "ba"), "<s>b</s>ba</s><s>a</s>");
}

#[test]
fn distinct_choices_are_scored_where_they_differ() {
    let scored = |choices: &[&str], distinct| {
        let params = Params { distinct, ..Params::default() };
        let (prepared, shared) = prepared(&request(&[("user", "b")], Some(choices), params));
        let Work::Score(choices) = &prepared.work else { panic!("no choices") };
        let texts: Vec<_> = choices.all().iter().map(|choice| text(&shared, choice)).collect();
        (texts, choices.first().count())
    };
    assert_eq!(scored(&["ab", "ba"], false), (vec!["ab".to_owned(), "ba".to_owned()], 1));
    assert_eq!(scored(&["ab", "ba"], true), (vec!["ab".to_owned(), "b".to_owned()], 0));
    // Two have their first token in common, and one of them ends there.
    let expected = ["aab", "ab", "a"].map(str::to_owned).to_vec();
    assert_eq!(scored(&["aab", "abb", "a"], true), (expected, 1));
}
