//! Imports other than models: settings, the log, notes, spans, regions and explanations for the
//! caller, and events for the metrics.

use infer_engine::text::excerpt;

use crate::bindings::infer::guest::explanations::{self, Contribution, Sentence};
use crate::bindings::infer::guest::log::{self, Level};
use crate::bindings::infer::guest::regions::{self, Region};
use crate::bindings::infer::guest::spans::{self, Span};
use crate::bindings::infer::guest::{events, notes, types};
use crate::bindings::wasi::config::store;
use crate::limits::{
    MAX_CATEGORY_BYTES, MAX_CONTRIBUTION_TEXT_BYTES, MAX_CONTRIBUTIONS, MAX_EVENT_BYTES, MAX_EVENTS,
    MAX_NOTE_BYTES, MAX_NOTES, MAX_REGION_TEXT_BYTES, MAX_REGIONS, MAX_SENTENCES, MAX_SPAN_LABEL_BYTES,
    MAX_SPANS,
};
use crate::state::State;

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        let of_request = self.settings.iter().find(|(own, _)| *own == key);
        let of_request = of_request.map(|(_, value)| value.clone());
        Ok(Ok(of_request.or_else(|| self.grants.settings.get(&key).cloned())))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        let pairs = self.grants.settings.iter().map(|(key, value)| (key.clone(), value.clone()));
        Ok(Ok(pairs.chain(self.settings.iter().cloned()).collect()))
    }
}

/// The interface has types only.
impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.guest_log.write(level, &message);
        Ok(())
    }
}

impl notes::Host for State {
    fn note(&mut self, message: String) -> wasmtime::Result<()> {
        let notes = &mut self.annotations.notes;
        if notes.len() < MAX_NOTES {
            notes.push(excerpt(&message, MAX_NOTE_BYTES).into_owned());
        }
        Ok(())
    }
}

impl spans::Host for State {
    fn report(&mut self, spans: Vec<Span>) -> wasmtime::Result<()> {
        let cut = |span: Span| Span {
            label: excerpt(&span.label, MAX_SPAN_LABEL_BYTES).into_owned(),
            score: probability(span.score),
            ..span
        };
        keep(&mut self.annotations.spans, MAX_SPANS, spans.into_iter().map(cut));
        Ok(())
    }
}

impl regions::Host for State {
    fn report(&mut self, regions: Vec<Region>) -> wasmtime::Result<()> {
        let cut = |region: Region| Region {
            text: excerpt(&region.text, MAX_REGION_TEXT_BYTES).into_owned(),
            score: probability(region.score),
            ..region
        };
        keep(&mut self.annotations.regions, MAX_REGIONS, regions.into_iter().map(cut));
        Ok(())
    }
}

impl explanations::Host for State {
    fn report_contributions(&mut self, contributions: Vec<Contribution>) -> wasmtime::Result<()> {
        let cut = |contribution: Contribution| Contribution {
            category: excerpt(&contribution.category, MAX_CATEGORY_BYTES).into_owned(),
            text: excerpt(&contribution.text, MAX_CONTRIBUTION_TEXT_BYTES).into_owned(),
            score_without: probability(contribution.score_without),
            log_odds: if contribution.log_odds.is_finite() { contribution.log_odds } else { 0.0 },
            ..contribution
        };
        keep(&mut self.annotations.contributions, MAX_CONTRIBUTIONS, contributions.into_iter().map(cut));
        Ok(())
    }

    fn report_sentences(&mut self, sentences: Vec<Sentence>) -> wasmtime::Result<()> {
        let cut = |sentence: Sentence| Sentence {
            category: excerpt(&sentence.category, MAX_CATEGORY_BYTES).into_owned(),
            score: probability(sentence.score),
            ..sentence
        };
        keep(&mut self.annotations.sentences, MAX_SENTENCES, sentences.into_iter().map(cut));
        Ok(())
    }
}

impl events::Host for State {
    fn count(&mut self, name: String) -> wasmtime::Result<()> {
        let events = &mut self.annotations.events;
        if events.len() < MAX_EVENTS && is_event(&name) {
            events.insert(name);
        }
        Ok(())
    }
}

/// True if `name` may be the name of an event.
fn is_event(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_:/".contains(&byte);
    (1..=MAX_EVENT_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Adds `new` to `kept`, which has room for `max`; further ones are dropped.
fn keep<T>(kept: &mut Vec<T>, max: usize, new: impl Iterator<Item = T>) {
    kept.extend(new.take(max - kept.len()));
}

/// The guest's number as a probability, which JSON can represent.
fn probability(score: f32) -> f32 {
    if score.is_finite() { score.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_short_plain_names() {
        for (name, expected) in [
            ("language:identity-terms", true),
            ("a/b_1", true),
            ("", false),
            ("Language", false),
            ("a b", false),
            ("a\"b", false),
            ("ä", false),
            (&"x".repeat(48), true),
            (&"x".repeat(49), false),
        ] {
            assert_eq!(is_event(name), expected, "{name}");
        }
    }
}
