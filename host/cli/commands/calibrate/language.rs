//! The use of a language model behind the classifiers, fitted to a budget.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use infer_config::thresholds::Cascade;
use infer_control::registry::LoadedComponent;
use infer_engine::text::names;
use infer_server::threads::block_on;
use infer_train::cascade::{Fitted, Opinions, Question, Ranking, fit};
use infer_train::{Example, Sample};
use serde::Serialize;

use crate::commands::training::{Judgement, RequestSettings, judge, progress};
use crate::limits::MAX_LABEL_TIME;

/// Requests that make `builtin:moderate` return what a fit needs.
const THRESHOLDS: RequestSettings = &[("request.calibrate", "thresholds")];
const CLASSIFIER: RequestSettings = &[("request.calibrate", "classifier")];
const LANGUAGE: RequestSettings = &[("request.calibrate", "language")];

/// Category of the only policy without `policy.categories`, as `builtin:moderate` has it.
const CATEGORY: &str = "harassment";

/// Names of the policies that `builtin:moderate` has without one of the operator's own.
const BUILT_IN: [&str; 2] = ["harassment", "hate"];

/// Keys of which one makes a policy of the operator's own.
const OWN: [&str; 4] = ["categories", "examples", "question", "text"];

/// The fitted use, and the texts that each trigger sends to the language model.
#[derive(Debug, Serialize)]
pub(super) struct Use {
    #[serde(flatten)]
    pub(super) fitted: Fitted,
    language_budget: f64,
    texts: usize,
    triggers: BTreeMap<String, usize>,
}

impl Use {
    /// Judges the examples of `sample` by the classifiers and by the language model of `loaded`,
    /// which has `settings`, and fits the use of the latter.
    ///
    /// # Errors
    ///
    /// If a text cannot be judged, no labelled category is judged by both, or the fit fails.
    pub(super) fn fit(
        loaded: &Arc<LoadedComponent>,
        settings: &BTreeMap<String, String>,
        sample: &Sample<'_>,
        language_budget: f64,
    ) -> anyhow::Result<Use> {
        let all = &sample.examples;
        let ask = |examples: &[&Example], settings, what| {
            let bar = progress(examples.len(), what);
            let judged = block_on(judge(loaded, examples, MAX_LABEL_TIME, settings, &bar))?;
            bar.finish_and_clear();
            judged.complete()
        };
        let thresholds = ask(&all[..all.len().min(2)], THRESHOLDS, "texts for the thresholds")?;
        let classifier = ask(all, CLASSIFIER, "texts by the classifiers")?;
        let language = ask(all, LANGUAGE, "texts by the language model")?;
        let advised: BTreeSet<_> = language.iter().flat_map(|judgement| &judgement.of_language).collect();
        let is_constant = |category: &&String| {
            thresholds.windows(2).all(|both| both[0].scores.get(*category) == both[1].scores.get(*category))
        };
        ensure!(
            advised.iter().all(is_constant),
            "component `{}` does not return its thresholds; expected `builtin:moderate`",
            loaded.component.name()
        );
        let thresholds = thresholds.into_iter().next().context("a sample has an example")?.scores;
        let questions = questions(settings);
        let mut triggers = BTreeMap::new();
        for event in classifier.iter().flat_map(|judgement| &judgement.events) {
            if let Some((_, trigger)) = event.split_once(':') {
                *triggers.entry(trigger.to_owned()).or_default() += 1;
            }
        }
        let texts: Vec<_> = all
            .iter()
            .zip(classifier.iter().zip(&language))
            .map(|(example, (classifier, language))| {
                opinions(example, &thresholds, classifier, language, &questions)
            })
            .collect();
        let judged = |own: &Opinions| own.truth.is_some();
        ensure!(
            texts.iter().flatten().any(judged),
            "no labelled category has a classifier and a language model; the language model judges {}",
            names(&advised)
        );
        let fitted = fit(&texts, language_budget)?;
        Ok(Use { fitted, language_budget, texts: texts.len(), triggers })
    }

    /// The use as settings of the component.
    pub(super) fn settings(&self) -> Cascade {
        let Fitted { low, high, weight, reached, .. } = self.fitted;
        let mut settings = BTreeMap::from([
            ("cascade.low".to_owned(), low as f32),
            ("cascade.high".to_owned(), high as f32),
            ("cascade.weight".to_owned(), weight as f32),
        ]);
        for (question, Question { temperature, threshold }) in &self.fitted.questions {
            // A guard's answers have the thresholds of its card.
            if question.starts_with("policy") {
                settings.insert(format!("{question}.temperature"), *temperature as f32);
                settings.insert(format!("{question}.threshold"), *threshold as f32);
            }
        }
        Cascade { language_budget: self.language_budget, reached, settings }
    }

    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Fitted { low, high, weight, reached, triggered, categories, .. } = &self.fitted;
        for (category, ranking) in categories {
            let Ranking { examples, positive, classifier, language, cascade } = ranking;
            writeln!(
                out,
                "{category:24} {examples:>7} examples, {positive:>6} positive, AUROC: classifier {classifier:.4}, \
                 language model {language:.4}, both {cascade:.4}"
            )?;
        }
        writeln!(
            out,
            "\nband {low:.4} to {high:.4}, weight {weight:.1}; the language model is asked about {:.1} % of {} texts, \
             about {:.1} % because of triggers",
            100.0 * reached,
            self.texts,
            100.0 * triggered
        )?;
        for (trigger, count) in &self.triggers {
            writeln!(out, "  {trigger:20} {:.1} %", 100.0 * *count as f64 / self.texts as f64)?;
        }
        if *weight == 0.0 {
            writeln!(
                out,
                "the language model does not improve the order of these texts, so its weight is 0"
            )?;
        }
        Ok(())
    }
}

/// The opinions about a text, of the categories that the language model judges.
fn opinions(
    example: &Example,
    thresholds: &BTreeMap<String, f64>,
    classifier: &Judgement,
    language: &Judgement,
    questions: &BTreeMap<String, String>,
) -> Vec<Opinions> {
    let of = |category: &String| {
        let threshold = *thresholds.get(category)?;
        let score = classifier.scores.get(category).copied();
        Some(Opinions {
            category: category.clone(),
            question: questions.get(category).cloned().unwrap_or_default(),
            threshold,
            classifier: score.unwrap_or(threshold),
            language: *language.scores.get(category)?,
            // A text that no classifier can read always reaches the language model, which then
            // decides alone.
            is_triggered: score.is_none() || classifier.of_language.contains(category),
            truth: score.and(example.labels.get(category).copied()),
        })
    };
    language.of_language.iter().filter_map(of).collect()
}

/// The policy of each category, by the prefix of its settings; none for a guard.
fn questions(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut questions = BTreeMap::new();
    let mut add = |prefix: String, categories: &str| {
        for category in categories.split(',') {
            questions.insert(category.trim().to_owned(), prefix.clone());
        }
    };
    let keys = || settings.keys().filter_map(|key| key.strip_prefix("policy."));
    let mut names: BTreeSet<_> =
        keys().filter_map(|key| key.rsplit_once('.')).map(|(name, _)| name).collect();
    if !keys().any(|key| OWN.contains(&key.rsplit_once('.').map_or(key, |(_, key)| key))) {
        names.extend(BUILT_IN);
    }
    let of = |key: &str| settings.get(key).map(String::as_str);
    if names.is_empty() {
        add("policy".to_owned(), of("policy.categories").unwrap_or(CATEGORY));
    }
    for name in names {
        let own = of(&format!("policy.{name}.categories")).or_else(|| of("policy.categories"));
        add(format!("policy.{name}"), own.unwrap_or(name));
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_belong_to_policies() {
        let questions = |pairs: &[(&str, &str)]| {
            let settings = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
            questions(&settings).into_iter().collect::<Vec<_>>()
        };
        let pair = |category: &str, question: &str| (category.to_owned(), question.to_owned());
        assert_eq!(questions(&[("policy.text", "Be kind.")]), [pair("harassment", "policy")]);
        let builtin = [pair("harassment", "policy.harassment"), pair("hate", "policy.hate")];
        assert_eq!(questions(&[("policy.hate.temperature", "2")]), builtin);
        assert_eq!(
            questions(&[("policy.hate.text", "x"), ("policy.spam.categories", "spam, scam")]),
            [pair("hate", "policy.hate"), pair("scam", "policy.spam"), pair("spam", "policy.spam")]
        );
    }

    #[test]
    fn unread_texts_count_against_the_budget_only() {
        let labels = BTreeMap::from([("hate".to_owned(), true)]);
        let example = Example {
            line: 1,
            text: "a".to_owned(),
            labels: labels.clone(),
            group: None,
            split: None,
            language: None,
            answer: None,
        };
        let scores = |score: f64| BTreeMap::from([("hate".to_owned(), score)]);
        let of_language = BTreeSet::from(["hate".to_owned()]);
        let language = Judgement { scores: scores(0.9), of_language, ..Judgement::default() };
        let read = Judgement { scores: scores(0.3), ..Judgement::default() };
        for (classifier, triggered, truth) in
            [(&read, false, Some(true)), (&Judgement::default(), true, None)]
        {
            let found = opinions(&example, &scores(0.6), classifier, &language, &BTreeMap::new());
            assert_eq!((found[0].is_triggered, found[0].truth), (triggered, truth));
            assert_eq!(found[0].language, 0.9);
        }
    }
}
