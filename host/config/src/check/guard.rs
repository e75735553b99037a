//! Checks the guards of chats.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use super::{Checker, one_of};
use crate::config::Guards;
use crate::file::File;
use crate::guard::{BlockedInput, GuardConfig, OnError, OnFlag, Windows};
use crate::key::Entry;
use crate::place::Place;
use crate::table;

/// A text with a default.
type Text<'a> = Entry<'a, Option<Spanned<String>>>;

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn guards(&mut self, file: &File) -> Guards {
        let default = file.chat.guard.as_ref().map(|guard| self.guard("`[chat.guard]`", guard, file));
        let mut models = BTreeMap::new();
        for (name, guard) in
            file.models.iter().filter_map(|(name, model)| Some((name, model.guard.as_ref()?)))
        {
            models.insert(name.clone(), self.guard(&format!("`[models.{name}.guard]`"), guard, file));
        }
        let mut upstreams = BTreeMap::new();
        for (name, guard) in file.upstreams.iter().filter_map(|(name, one)| Some((name, one.guard.as_ref()?)))
        {
            upstreams.insert(name.clone(), self.guard(&format!("`[upstreams.{name}.guard]`"), guard, file));
        }
        Guards { default, models, upstreams }
    }

    fn guard(&mut self, subject: &str, guard: &table::Guard, file: &File) -> GuardConfig {
        let numbers = format!("{subject}: ");
        let windows = Windows {
            hold_back: self.number(&numbers, guard.hold_back_tokens()) as usize,
            stride: self.number(&numbers, guard.stride_tokens()) as usize,
            window: self.number(&numbers, guard.window_tokens()) as usize,
        };
        let least = windows.hold_back + windows.stride;
        if windows.window < least {
            let set =
                [&guard.window_tokens, &guard.hold_back_tokens, &guard.stride_tokens].into_iter().flatten();
            let message = format!(
                "{subject}: `window_tokens` is {}, expected at least {least}, `hold_back_tokens` and `stride_tokens` \
                 together: a window contains all that is held back",
                windows.window
            );
            if let Some(entry) = set.into_iter().next() {
                self.mistake(entry.span().start, message);
            }
        }
        let mut thresholds = BTreeMap::new();
        for (category, entry) in guard.thresholds.iter().flatten() {
            let threshold = *entry.get_ref();
            if !(0.0..=1.0).contains(&threshold) {
                let message = format!(
                    "{subject}: threshold of `{category}` is {threshold}, expected a score from 0 to 1"
                );
                self.mistake(entry.span().start, message);
            }
            thresholds.insert(category.clone(), threshold as f32);
        }
        let categories = guard.categories.as_ref().map(|categories| {
            categories.iter().map(|category| category.get_ref().clone()).collect::<BTreeSet<_>>()
        });
        GuardConfig {
            input: self.guard_component(subject, &guard.input(), file),
            output: self.guard_component(subject, &guard.output(), file),
            judges_system: guard.judge_system().flag(),
            windows,
            on_flag: self.choice(subject, &guard.on_flag(), OnFlag::ALL, OnFlag::name),
            on_error: self.choice(subject, &guard.on_error(), OnError::ALL, OnError::name),
            blocked_input: self.choice(
                subject,
                &guard.blocked_input(),
                BlockedInput::ALL,
                BlockedInput::name,
            ),
            refusal: guard.refusal().text().to_owned(),
            redaction: guard.redaction().text().to_owned(),
            categories,
            thresholds,
        }
    }

    fn guard_component(
        &mut self,
        subject: &str,
        Entry { key, value }: &Text<'_>,
        file: &File,
    ) -> Option<String> {
        let entry = value.as_ref()?;
        let name = entry.get_ref();
        if !file.components.contains_key(name) {
            let message = format!(
                "{subject}: `{}` is `{name}`, which is not a component; expected {}, or a section [components.{name}] \
                 of a moderator",
                key.name,
                one_of(file.components.keys()),
            );
            self.mistake(entry.span().start, message);
        }
        Some(name.clone())
    }

    /// Returns the value whose name the key has.
    fn choice<T: Copy, const N: usize>(
        &mut self,
        subject: &str,
        entry: &Text<'_>,
        values: [T; N],
        name: fn(T) -> &'static str,
    ) -> T {
        let text = entry.text();
        let found = values.into_iter().find(|value| name(*value) == text);
        if let (None, Some(found)) = (found, entry.value) {
            let names = one_of(values.map(name));
            let message = format!("{subject}: `{}` is `{text}`, expected {names}", entry.key.name);
            self.mistake(found.span().start, message);
        }
        found.unwrap_or(values[0])
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Origin};

    #[test]
    fn mistakes_name_section_and_key() {
        let cases = [
            (
                "input = \"none\"",
                "`[chat.guard]`: `input` is `none`, which is not a component; expected `list`, or",
            ),
            ("on_flag = \"mask\"", "`on_flag` is `mask`, expected `block`, `stop`, `redact` or `annotate`"),
            ("on_error = \"\"", "`on_error` is ``, expected `block` or `allow`"),
            ("blocked_input = \"200\"", "`blocked_input` is `200`, expected `answer` or `error`"),
            ("window_tokens = 39", "`window_tokens` is 39, expected at least 40"),
            ("hold_back_tokens = 125", "`window_tokens` is 128, expected at least 133"),
            ("thresholds = { hate = 1.5 }", "threshold of `hate` is 1.5, expected a score from 0 to 1"),
        ];
        for (line, expected) in cases {
            let text = format!("[components.list]\nsource = \"builtin:moderate\"\n[chat.guard]\n{line}\n");
            let error = Config::parse(&text, &Origin::Builtin).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn upstreams_have_the_guard_of_all_chats() {
        let text = "[components.list]\nsource = \"builtin:moderate\"\n[chat.guard]\noutput = \"list\"\n\
                    [upstreams.far]\nurl = \"https://a.example/v1\"\nmodels = { a = \"a\" }\n";
        let guard =
            |text: &str| Config::parse(text, &Origin::Builtin).unwrap().guards.of_upstream("far").cloned();
        assert_eq!(guard(text).unwrap().output.as_deref(), Some("list"));
        assert_eq!(guard(&format!("{text}[upstreams.far.guard]")).unwrap().output, None);
    }

    #[test]
    fn guard_of_a_model_replaces_the_default() {
        let text = "[components.list]\nsource = \"builtin:moderate\"\n[chat.guard]\ninput = \"list\"\n\
                    [models.text]\nsource = \"builtin:toxic-bilstm\"\n[models.text.guard]\n";
        let config = Config::parse(text, &Origin::Builtin).unwrap();
        assert_eq!(config.guards.of("text").unwrap().input, None);
        assert_eq!(config.guards.of("other").unwrap().input.as_deref(), Some("list"));
    }
}
