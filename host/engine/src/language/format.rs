//! Answers of a fixed format: JSON, JSON of a schema, or one of given texts.
//!
//! `llguidance` computes the tokens that may come next; all others get no probability.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::request::AnswerFormat;
use super::tokenizer::Tokenizer;
use crate::limits::{
    MAX_FORMAT_BYTES, MAX_FORMAT_FUEL, MAX_FORMAT_ITEMS, MAX_FORMAT_NODES, MAX_FORMAT_STATES,
    MAX_FORMAT_TOKEN_BYTES,
};
use crate::model::panic_message;
use crate::text::{MESSAGE_BYTES, excerpt_of};

/// Builds constraints for the vocabulary of a model, which is prepared at the first use.
#[derive(Default)]
pub(super) struct Formats(OnceLock<Result<ParserFactory, String>>);

/// The part of a format that an answer has not reached yet.
pub(super) struct Constraint(Matcher);

impl Formats {
    /// Returns a constraint for one answer.
    ///
    /// # Errors
    ///
    /// A message about a schema that is not supported, or too large.
    pub(super) fn constraint(
        &self,
        tokenizer: &Tokenizer,
        format: &AnswerFormat,
    ) -> Result<Constraint, String> {
        let factory = self.0.get_or_init(|| guarded(|| factory(tokenizer))).as_ref();
        let factory = factory.map_err(Clone::clone)?;
        let grammar = match format {
            AnswerFormat::JsonObject => json_grammar(json!({ "type": "object" })),
            AnswerFormat::JsonSchema(schema) => {
                MAX_FORMAT_BYTES.check("the schema", schema.to_string().len())?;
                json_grammar(schema.clone())
            }
            AnswerFormat::Choice(texts) => {
                MAX_FORMAT_BYTES.check("`enum`", texts.iter().map(|text| text.len() + 1).sum())?;
                let escaped: Vec<_> = texts.iter().map(|text| fancy_regex::escape(text)).collect();
                TopLevelGrammar::from_regex(&escaped.join("|"))
            }
        };
        let parser = guarded(|| factory.create_parser(grammar).map_err(|error| error.to_string()))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(excerpt_of(error, MESSAGE_BYTES)),
            None => Ok(Constraint(matcher)),
        }
    }
}

/// The grammar of a schema, without whitespace between the parts: a model could go on with it
/// forever.
fn json_grammar(mut schema: Value) -> TopLevelGrammar {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Some(members) = schema.as_object_mut() {
        members.insert("x-guidance".to_owned(), json!({ "whitespace_flexible": false }));
    }
    TopLevelGrammar::from_json_schema(schema)
}

impl Constraint {
    /// Sets the logits of all tokens that may not come next to negative infinity.
    ///
    /// # Errors
    ///
    /// A message if that takes too many steps.
    pub(super) fn restrict(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let mask = self.0.compute_mask_or_eos().map_err(|error| excerpt_of(error, MESSAGE_BYTES))?;
        let mut has_token = false;
        for (token, logit) in (0..).zip(logits) {
            if mask.is_allowed(token) {
                has_token = true;
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        if has_token { Ok(()) } else { Err("no token of the vocabulary can continue the answer".to_owned()) }
    }

    /// Continues with `token`, and returns true if the answer is complete.
    ///
    /// # Errors
    ///
    /// A message if the token may not come next.
    pub(super) fn accept(&mut self, token: u32) -> Result<bool, String> {
        self.0.consume_token(token).map_err(|error| excerpt_of(error, MESSAGE_BYTES))?;
        Ok(self.0.is_stopped())
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Constraint")
    }
}

fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let size = u32::try_from(tokenizer.vocabulary_size()).map_err(|error| error.to_string())?;
    let ends: Vec<u32> = (0..size).filter(|&token| tokenizer.is_end(token)).collect();
    let Some(&end) = ends.first() else {
        return Err(
            "the model has no token that ends an answer, so that no format can be enforced".to_owned()
        );
    };
    let word = |token| match tokenizer.token_bytes(token) {
        // Control tokens have no text. A first byte of 255 would mean one to the library.
        [0xff, ..] => Vec::new(),
        bytes if tokenizer.is_control(token) || bytes.len() > MAX_FORMAT_TOKEN_BYTES => Vec::new(),
        bytes => bytes.to_vec(),
    };
    let words: Vec<_> = (0..size).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
    let mut factory = factory.map_err(|error| error.to_string())?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        initial_lexer_fuel: MAX_FORMAT_NODES,
        max_grammar_size: MAX_FORMAT_NODES as usize,
        max_lexer_states: MAX_FORMAT_STATES,
        step_lexer_fuel: MAX_FORMAT_FUEL,
        step_max_items: MAX_FORMAT_ITEMS,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

/// Turns a panic of the library into an error.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // Unwind safety: what the closure builds is dropped with a panic.
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_message(&*panic)));
    result.map_err(|error| excerpt_of(error, MESSAGE_BYTES))
}
