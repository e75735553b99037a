//! The result of a training: figures on examples that the head was not fitted to, and its most
//! informative mistakes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use infer_engine::text::excerpt;
use serde::Serialize;

use crate::dataset::Split;
use crate::features::Features;
use crate::head::grouped;
use crate::limits::{MAX_SHOWN_BYTES, MIN_BINNED_EXAMPLES};
use crate::logistic::sigmoid;
use crate::metrics::{self, Decision, Scored, counts};
use crate::selection::{Facts, Selection};
use crate::trainer::{ClassWeights, Trained};

/// Figures of a head on examples that it was not fitted to. A figure is `None` if the examples are
/// too few, or all of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Examples.
    pub examples: usize,
    /// Of these, positive ones.
    pub positive: usize,
    /// Probability that a positive example scores above a negative one.
    pub auroc: Option<f64>,
    /// Mean precision over the recalls.
    pub average_precision: Option<f64>,
    /// Expected calibration error of the logits without a calibration.
    pub calibration_error_before: Option<f64>,
    /// Expected calibration error of the calibrated probabilities.
    pub calibration_error: Option<f64>,
    /// Quality at the proposed threshold.
    pub decision: Option<Decision>,
}

/// An example that the head decides against its label: a mistake of the head, or of the label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mistake {
    /// Its line in the file.
    pub line: usize,
    /// The label.
    pub label: bool,
    /// Out-of-fold probability of a positive example.
    pub probability: f64,
    /// The beginning of the text on one line, with control characters escaped.
    pub text: String,
}

/// The result of a training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Facts about the data.
    pub data: Facts,
    /// Numbers of an embedding.
    pub size: usize,
    /// Weights of the classes.
    pub class_weights: ClassWeights,
    /// Inverse of the penalty.
    pub c: f64,
    /// Folds of the cross-validation.
    pub folds: usize,
    /// True if the head has a calibration.
    pub calibrated: bool,
    /// The proposed threshold, which has the best F1 out of fold.
    pub threshold: f64,
    /// Figures on the examples to train on, each judged by a head that was not fitted to it.
    pub out_of_fold: Figures,
    /// Figures of the head on other splits.
    pub held_out: BTreeMap<Split, Figures>,
    /// The most confident decisions against the label, the most confident first.
    pub mistakes: Vec<Mistake>,
}

impl Report {
    /// Measures `trained`, and lists up to `mistakes` mistakes.
    pub fn new(
        selection: &Selection<'_>,
        features: &Features,
        class_weights: ClassWeights,
        trained: &Trained,
        mistakes: usize,
    ) -> Report {
        let threshold = trained.decision.threshold;
        let truths = |examples: &[usize]| -> Vec<bool> {
            examples.iter().map(|&index| selection.truths[index]).collect()
        };
        let out_of_fold = Figures::new(
            &truths(&selection.train),
            &trained.logits,
            &trained.probabilities,
            Some(trained.decision),
        );
        let calibration = trained.calibration.unwrap_or(crate::Calibration::NONE);
        let of_split = |(split, examples): (&Split, &Vec<usize>)| {
            let logits = examples.iter().map(|&index| trained.regression.logit(features.row(index)));
            let logits: Vec<_> = logits.collect();
            let probabilities: Vec<_> = logits.iter().map(|logit| calibration.probability(*logit)).collect();
            let truths = truths(examples);
            let decision = metrics::decide(&scored(&truths, &probabilities), threshold);
            (*split, Figures::new(&truths, &logits, &probabilities, decision))
        };
        Report {
            data: selection.facts.clone(),
            size: features.size(),
            class_weights,
            c: trained.c,
            folds: trained.folds,
            calibrated: trained.calibration.is_some(),
            threshold,
            out_of_fold,
            held_out: selection.held_out.iter().map(of_split).collect(),
            mistakes: find_mistakes(selection, trained, mistakes),
        }
    }

    /// Writes the report for reading.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Facts { labelled, positive, unlabelled, duplicates, conflicting, leaked, .. } = self.data;
        writeln!(
            out,
            "data           {} labelled examples, {} positive; {} without a label",
            grouped(labelled),
            grouped(positive),
            grouped(unlabelled)
        )?;
        if duplicates > 0 {
            writeln!(out, "  duplicates   {} texts stand in an earlier line", grouped(duplicates))?;
        }
        if conflicting > 0 {
            let lines = self.data.conflicting_lines.iter().map(usize::to_string).collect::<Vec<_>>();
            writeln!(
                out,
                "  conflicting  {} texts have both labels, such as line {}",
                grouped(conflicting),
                lines.join(", ")
            )?;
        }
        if leaked > 0 {
            writeln!(
                out,
                "  left out     {} examples of dev or test share a text or group with one to train on",
                grouped(leaked)
            )?;
        }
        if !self.data.other_labels.is_empty() {
            let names: Vec<_> =
                self.data.other_labels.iter().map(|name| excerpt(name, MAX_SHOWN_BYTES)).collect();
            writeln!(out, "  negative     labels with the names {}", names.join(", "))?;
        }
        writeln!(
            out,
            "head           {} weights, C {} by {}-fold cross-validation{}",
            self.size,
            self.c,
            self.folds,
            if self.class_weights == ClassWeights::Balanced { ", classes balanced" } else { "" }
        )?;
        if !self.calibrated {
            writeln!(out, "  calibration  none: too few examples, so scores are no probabilities")?;
        }
        writeln!(out, "  threshold    {:.4}, which has the best F1 out of fold", self.threshold)?;
        writeln!(
            out,
            "\n               examples  positive   AUROC  average precision   ECE raw  calibrated  precision  recall      F1"
        )?;
        self.out_of_fold.print("out of fold", out)?;
        for (split, figures) in &self.held_out {
            figures.print(if *split == Split::Dev { "dev" } else { "test" }, out)?;
        }
        if self.out_of_fold.calibration_error.is_none() {
            writeln!(
                out,
                "  a dash: too few examples; ECE needs {MIN_BINNED_EXAMPLES}, and all figures of fewer are rough"
            )?;
        }
        if !self.mistakes.is_empty() {
            writeln!(out, "\nmost confident decisions against the label:")?;
        }
        for Mistake { line, label, probability, text } in &self.mistakes {
            let label = if *label { "positive" } else { "negative" };
            writeln!(out, "  line {line:<7} {label}, scored {probability:.4}  {text}")?;
        }
        Ok(())
    }
}

impl Figures {
    fn new(truths: &[bool], logits: &[f64], probabilities: &[f64], decision: Option<Decision>) -> Figures {
        let ranked = scored(truths, logits);
        let raw: Vec<_> = ranked.iter().map(|one| Scored { score: sigmoid(one.score), ..*one }).collect();
        let probable = scored(truths, probabilities);
        let (positive, negative) = counts(&ranked);
        let binned = |scored: &[Scored]| {
            metrics::calibration_error(scored).filter(|_| scored.len() >= MIN_BINNED_EXAMPLES)
        };
        Figures {
            examples: truths.len(),
            positive,
            auroc: metrics::auroc(&ranked),
            average_precision: metrics::average_precision(&ranked).filter(|_| negative > 0),
            calibration_error_before: binned(&raw),
            calibration_error: binned(&probable),
            decision,
        }
    }

    fn print(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let decision = |part: fn(&Decision) -> f64| figure(self.decision.as_ref().map(part));
        writeln!(
            out,
            "{name:13} {:>9} {:>9} {:>7} {:>18} {:>9} {:>11} {:>10} {:>7} {:>7}",
            grouped(self.examples),
            grouped(self.positive),
            figure(self.auroc),
            figure(self.average_precision),
            figure(self.calibration_error_before),
            figure(self.calibration_error),
            decision(|decision| decision.precision),
            decision(|decision| decision.recall),
            decision(|decision| decision.f1),
        )
    }
}

fn scored(truths: &[bool], scores: &[f64]) -> Vec<Scored> {
    truths.iter().zip(scores).map(|(&truth, &score)| Scored { score, truth }).collect()
}

fn find_mistakes(selection: &Selection<'_>, trained: &Trained, count: usize) -> Vec<Mistake> {
    let is_flagged = |probability: f64| probability >= trained.decision.threshold;
    let mut wrong: Vec<_> = selection
        .train
        .iter()
        .zip(&trained.probabilities)
        .filter(|(index, probability)| is_flagged(**probability) != selection.truths[**index])
        .map(|(index, probability)| (*index, *probability))
        .collect();
    let error =
        |(index, probability): &(usize, f64)| (f64::from(selection.truths[*index]) - probability).abs();
    wrong.sort_by(|one, other| error(other).total_cmp(&error(one)).then(one.0.cmp(&other.0)));
    wrong.truncate(count);
    let mistake = |(index, probability): (usize, f64)| {
        let example = selection.examples[index];
        let text = excerpt(&example.text, MAX_SHOWN_BYTES).into_owned();
        Mistake { line: example.line, label: selection.truths[index], probability, text }
    };
    wrong.into_iter().map(mistake).collect()
}
