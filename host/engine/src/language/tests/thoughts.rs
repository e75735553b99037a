//! Thinking switches of chat templates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::language::format::Formats;
use crate::language::gguf::Gguf;
use crate::language::inbox::Inbox;
use crate::language::job::Work;
use crate::language::kv::KvPool;
use crate::language::preparation::Preparation;
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

fn shared() -> Shared {
    let file =
        small().text("tokenizer.chat_template", TEMPLATE).bool("tokenizer.ggml.add_space_prefix", false);
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(Bytes::Owned(file.build())).unwrap()).unwrap();
    let (inbox, counters, pool) = (Inbox::new(4), Counters::default(), KvPool::new(1, 16, 1 << 16));
    Shared {
        name: "m".to_owned(),
        inbox,
        counters,
        tokenizer,
        formats: Formats::default(),
        pool,
        sessions: 1,
        max_batch: 1,
    }
}

/// The text of the prompt, and of each choice after it.
fn texts(choices: Option<&[&str]>, arguments: &str) -> Vec<String> {
    let shared = Arc::new(shared());
    let caller = Arc::new(());
    let preparation = Preparation {
        shared: shared.clone(),
        before: Vec::new(),
        context: 64,
        vocabulary: shared.tokenizer.vocabulary_size(),
        deadline: Instant::now() + Duration::from_secs(60),
        caller: Arc::downgrade(&caller),
    };
    let turn = Message { role: "user".to_owned(), content: "ab".to_owned() };
    let template_arguments = TemplateArguments::parse(arguments).unwrap();
    let prepared = preparation.run(&Request {
        prompt: Prompt::Messages(vec![turn]),
        choices: choices.map(|choices| choices.iter().map(|choice| (*choice).to_owned()).collect()),
        params: Params { template_arguments, ..Params::default() },
    });
    let prepared = prepared.unwrap();
    let text = |tokens: &[u32]| -> String {
        tokens.iter().map(|token| shared.tokenizer.token_text(*token).unwrap().into_owned()).collect()
    };
    match &prepared.work {
        Work::Score(choices) => {
            choices.all().iter().map(|choice| text(&prepared.prompt) + &text(choice)).collect()
        }
        Work::Generate(..) => vec![text(&prepared.prompt)],
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
