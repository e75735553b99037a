//! The second tier: a language model judges texts where the text classifier may be wrong, by the
//! operator's policies or by the questions of its card.
//!
//! The classifier is certain if its score is far from the category's threshold and no trigger
//! fires. Otherwise its score and the language model's probability are combined as evidence: on the
//! scale of log-odds, each relative to its own threshold. So each category keeps its single
//! threshold, and reaches it when the weighted evidence of both does.

use std::collections::BTreeSet;
use std::ops::Range;

use guest_sdk::nn::{ErrorCode, ModelError};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Tier, count, log, note};

use crate::band::{Answer, BUILT_IN_WEIGHT, Band, WEIGHT};
use crate::categories::{Advised, LANGUAGE, THRESHOLD};
use crate::guard::Guard;
use crate::opinion;
use crate::policy::Policy;
use crate::triggers::{Triggers, has_identity_term};
use crate::verdict::{Finding, Row};

/// Event of a call that asked the language model; with a colon and a reason, of why.
const EVENT: &str = "language";

/// The language model and the condition for asking it.
#[derive(Debug)]
pub(crate) struct Cascade {
    advisers: Vec<Adviser>,
    /// The categories of all advisers.
    categories: Vec<Advised>,
    band: Band,
    triggers: Triggers,
    /// True if an input is a fault when the language model should have judged it and did not.
    required: bool,
    mode: Mode,
}

/// One question to the language model.
#[derive(Debug)]
struct Adviser {
    means: Means,
    /// Its categories among those of the cascade.
    categories: Range<usize>,
}

/// The means by which the language model judges.
#[derive(Debug)]
enum Means {
    Policy(Policy),
    Guard(Guard),
}

/// The use of the rows: a verdict, or what `infer calibrate` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Verdict,
    /// The thresholds in place of the scores.
    Thresholds,
    /// The classifiers' scores; the tier says where a trigger fires.
    Classifier,
    /// The language model's probabilities in place of the scores, for every text.
    Language,
}

impl Mode {
    fn read(settings: &Settings) -> Result<Mode, Fault> {
        match settings.text("request.calibrate") {
            None => Ok(Mode::Verdict),
            Some("thresholds") => Ok(Mode::Thresholds),
            Some("classifier") => Ok(Mode::Classifier),
            Some("language") => Ok(Mode::Language),
            Some(found) => Err(Fault::Internal(format!(
                "setting `request.calibrate`: expected `thresholds`, `classifier` or `language`, found `{found}`"
            ))),
        }
    }
}

impl Cascade {
    /// Reads the second tier's settings. Returns `None` without a configured language model.
    ///
    /// # Errors
    ///
    /// `internal` for an invalid setting or model.
    pub(crate) fn read(settings: &Settings) -> Result<Option<Cascade>, Fault> {
        let Some(card) = settings.card(LANGUAGE) else { return Ok(None) };
        let mut categories = Vec::new();
        let mut adviser = |means: Means, of: Vec<Advised>| {
            let first = categories.len();
            categories.extend(of);
            Adviser { means, categories: first..categories.len() }
        };
        let advisers = match (card.require("task")?, card.find("questions")) {
            ("text-generation", _) => {
                let of = |policy: Policy| {
                    let names = policy.categories.iter().cloned();
                    let threshold = Some(THRESHOLD);
                    let of = names.map(|name| Advised { name, threshold }).collect();
                    adviser(Means::Policy(policy), of)
                };
                Policy::all(settings)?.into_iter().map(of).collect()
            }
            ("text-classification", Some(_)) => {
                let guard = Guard::read(settings, card)?;
                let of = guard.categories().collect();
                vec![adviser(Means::Guard(guard), of)]
            }
            (task, _) => {
                return Err(Fault::Internal(format!(
                    "model `{LANGUAGE}`: expected a model for text-generation, or a guard, its card says {task}"
                )));
            }
        };
        let (band, triggers) = (Band::read(settings)?, Triggers::read(settings)?);
        let required = settings.get("cascade.required", false)?;
        let mode = Mode::read(settings)?;
        Ok(Some(Cascade { advisers, categories, band, triggers, required, mode }))
    }

    /// Categories that the language model judges.
    pub(crate) fn categories(&self) -> &[Advised] {
        &self.categories
    }

    /// Judges the categories of `rows` where the classifier may be wrong. `rows` contain the
    /// classifier's findings on `texts`.
    ///
    /// # Errors
    ///
    /// `model` when the language model does not answer, and no classifier has judged or
    /// `cascade.required` is set.
    pub(crate) fn judge<T: AsRef<str>>(&self, rows: &mut [Row<'_>], texts: &[T]) -> Result<(), Fault> {
        let has_verdict = !self.required && rows.iter().any(|row| row.text.score().is_some());
        let has_identity_term = has_identity_term(texts);
        for Adviser { means, categories } in &self.advisers {
            let own = &self.categories[categories.clone()];
            let place = |(place, row): (usize, &Row<'_>)| {
                Some((place, own.iter().position(|category| category.name == row.name)?))
            };
            let places: Vec<_> = rows.iter().enumerate().filter_map(place).collect();
            let fired: BTreeSet<_> = places
                .iter()
                .flat_map(|&(place, _)| self.triggers.fired(&rows[place], rows, has_identity_term))
                .collect();
            let uncertain = self.band.reason(places.iter().map(|&(place, _)| &rows[place]));
            if self.mode != Mode::Verdict {
                let answers = match self.mode {
                    Mode::Language => means.ask(own, texts)?,
                    _ => Vec::new(),
                };
                fired.iter().for_each(|trigger| count(&[EVENT, ":", trigger].concat()));
                self.show(rows, &places, &answers, !fired.is_empty());
                continue;
            }
            let reasons: Vec<_> = uncertain.into_iter().chain(fired.iter().copied()).collect();
            if reasons.is_empty() {
                continue;
            }
            // A trigger means that the classifier may be wrong about the text, an uncertain score
            // only about its category.
            let is_open = |row: &Row<'_>| !fired.is_empty() || self.band.is_open(row);
            let open: Vec<_> = places.into_iter().filter(|&(place, _)| is_open(&rows[place])).collect();
            let names = || open.iter().map(|&(place, _)| rows[place].name);
            report(names(), &reasons);
            match means.ask(own, texts) {
                Ok(answers) => {
                    open.into_iter().for_each(|(place, category)| {
                        self.band.apply(&mut rows[place], answers[category]);
                    });
                }
                Err(error) if has_verdict => {
                    log::warn(&format!("keeping the classifier's verdict: {error}"));
                    let reason = match error.code {
                        ErrorCode::Timeout => "uncertain, and the language model did not answer in time",
                        _ => "uncertain, and the language model did not answer",
                    };
                    open.into_iter().for_each(|(place, _)| rows[place].text_gaps.push(reason.to_owned()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Replaces the scores at `places`, each with its index among the answers, by what a
    /// calibration asks for.
    fn show(&self, rows: &mut [Row<'_>], places: &[(usize, usize)], answers: &[Answer], has_fired: bool) {
        for &(place, category) in places {
            let row = &mut rows[place];
            row.text = match (self.mode, row.text) {
                (Mode::Thresholds, _) => Finding::Score(row.threshold.unwrap_or(THRESHOLD), Tier::Classifier),
                (Mode::Language, _) => Finding::Score(answers[category].probability, Tier::Language),
                (_, Finding::Score(score, _)) if has_fired => Finding::Score(score, Tier::Language),
                (_, finding) => finding,
            };
        }
    }
}

/// Tells the caller and the metrics why the language model is asked.
fn report<'n>(categories: impl Iterator<Item = &'n str>, reasons: &[&str]) {
    count(EVENT);
    reasons.iter().for_each(|reason| count(&[EVENT, ":", reason].concat()));
    let categories: Vec<_> = categories.map(|name| format!("`{name}`")).collect();
    let (categories, reasons) = (categories.join(", "), reasons.join(", "));
    note(&format!("the language model was asked about {categories}: {reasons}"));
}

impl Means {
    /// The answers about `categories`, in their order.
    fn ask<T: AsRef<str>>(&self, categories: &[Advised], texts: &[T]) -> Result<Vec<Answer>, ModelError> {
        match self {
            Means::Policy(policy) => {
                let opinion = opinion::ask(policy, LANGUAGE, texts)?;
                let gap = "too long for the language model, which read the beginning and the end";
                let gap = opinion.cut.then_some(gap);
                let Policy { threshold, temperature, is_builtin, .. } = *policy;
                let weight = if is_builtin { BUILT_IN_WEIGHT } else { WEIGHT };
                let probability = opinion.probability;
                let answer = Answer { probability, threshold, temperature, weight, is_of_guard: false, gap };
                Ok(vec![answer; categories.len()])
            }
            Means::Guard(guard) => {
                let opinion = guard.ask(LANGUAGE, texts)?;
                let gap = "too long for the language model, which read the beginning";
                let gap = opinion.cut.then_some(gap);
                let answer = |(probability, category): (f32, &Advised)| {
                    let threshold = category.threshold.unwrap_or(THRESHOLD);
                    Answer {
                        probability,
                        threshold,
                        temperature: 1.0,
                        weight: WEIGHT,
                        is_of_guard: true,
                        gap,
                    }
                };
                Ok(opinion.probabilities.into_iter().zip(categories).map(answer).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_settings_are_named() {
        let cases = [
            (
                "cascade.low",
                "-1",
                "setting `cascade.low`: expected a multiple of a threshold, 0 or more, found `-1`",
            ),
            (
                "cascade.high",
                "0.01",
                "setting `cascade.high`: expected at least `cascade.low`, which is 0.4, found",
            ),
            ("cascade.weight", "2", "setting `cascade.weight`: expected a number from 0 to 1, found `2`"),
            (
                "cascade.required",
                "yes",
                "setting `cascade.required`: expected `true` or `false`, found `yes`",
            ),
            (
                "cascade.triggers",
                "all",
                "setting `cascade.triggers`: expected some of disagreement, unknown-words",
            ),
            ("request.calibrate", "x", "setting `request.calibrate`: expected `thresholds`"),
            (
                "models.language.task",
                "text-classification",
                "model `language`: expected a model for text-generation, or a guard",
            ),
        ];
        for (key, value, words) in cases {
            let mut pairs = vec![(key.to_owned(), value.to_owned())];
            if key != "models.language.task" {
                pairs.push(("models.language.task".to_owned(), "text-generation".to_owned()));
            }
            let Err(Fault::Internal(message)) = Cascade::read(&Settings::from_pairs(pairs)) else {
                panic!("{key}")
            };
            assert!(message.starts_with(words), "{message}");
        }
        assert!(Cascade::read(&Settings::from_pairs(Vec::new())).unwrap().is_none());
    }

    #[test]
    fn policies_have_categories_of_their_own() {
        let read = |pairs: &[(&str, &str)]| {
            let own = pairs.iter().chain(&[("models.language.task", "text-generation")]);
            let pairs = own.map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
            let cascade = Cascade::read(&Settings::from_pairs(pairs))?.unwrap();
            Ok::<_, Fault>(
                cascade
                    .advisers
                    .iter()
                    .map(|adviser| {
                        let own = &cascade.categories[adviser.categories.clone()];
                        own.iter().map(|category| category.name.clone()).collect::<Vec<_>>()
                    })
                    .collect::<Vec<_>>(),
            )
        };
        let two = [("policy.hate.text", "No hate."), ("policy.spam.categories", "spam, scam")];
        assert_eq!(read(&two).unwrap(), [vec!["hate"], vec!["spam", "scam"]]);
        assert_eq!(read(&[]).unwrap(), [["harassment"], ["hate"]]);
        let same = [("policy.a.categories", "hate"), ("policy.hate.text", "No hate.")];
        let Err(Fault::Internal(message)) = read(&same) else { panic!("two policies judge one category") };
        assert!(message.ends_with("expected categories that no other policy has, found `hate`"), "{message}");
    }
}
