//! Heads: linear layers on an encoder's embedding, which turn it into the scores of labels.
//!
//! A head is a small TOML file, so that new categories need no new encoder: one pass of the encoder
//! feeds all heads of a card.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::category::Category;
use crate::limits::{MAX_HEAD_LABELS, MAX_HEAD_VALUES};
use crate::text::toml_message;

/// The head of one label: a score from an embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The label that it scores.
    pub label: String,
    /// Factors of the embedding's values.
    pub weights: Vec<f32>,
    /// Added to the sum of products. The result is the label's log-odds before calibration.
    pub bias: f32,
    /// Turns the log-odds into a probability.
    pub calibration: Calibration,
}

/// Function that turns the log-odds of a label into the probability that texts with this score have
/// the label.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "CalibrationToml")]
pub enum Calibration {
    /// `sigmoid(log-odds / temperature + shift)`.
    Temperature {
        /// Positive divisor of the log-odds.
        temperature: f32,
        /// Log-odds that are added.
        shift: f32,
    },
    /// Points of log-odds and probability, both rising. Between two points the probability is
    /// interpolated; outside of them it is that of the nearest.
    Isotonic(Vec<[f32; 2]>),
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration::Temperature { temperature: 1.0, shift: 0.0 }
    }
}

impl Calibration {
    /// Returns the probability for `logit`.
    pub(crate) fn probability(&self, logit: f32) -> f32 {
        match self {
            Calibration::Temperature { temperature, shift } => {
                1.0 / (1.0 + (-(logit / temperature + shift)).exp())
            }
            Calibration::Isotonic(points) => {
                let after = points.partition_point(|[at, _]| *at <= logit);
                match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
                    (Some([low, p]), Some([high, q])) => p + (q - p) * (logit - low) / (high - low),
                    (Some([_, p]), None) | (None, Some([_, p])) => *p,
                    (None, None) => f32::NAN,
                }
            }
        }
    }
}

/// Keys of a calibration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CalibrationToml {
    temperature: Option<f32>,
    shift: Option<f32>,
    isotonic: Option<Vec<[f32; 2]>>,
}

impl TryFrom<CalibrationToml> for Calibration {
    type Error = String;

    fn try_from(toml: CalibrationToml) -> Result<Self, String> {
        let CalibrationToml { temperature, shift, isotonic } = toml;
        let Some(points) = isotonic else {
            let (temperature, shift) = (temperature.unwrap_or(1.0), shift.unwrap_or(0.0));
            if !(temperature.is_finite() && temperature > 0.0) {
                return Err(format!("`temperature` is {temperature}, expected a number above 0"));
            }
            if !shift.is_finite() {
                return Err(format!("`shift` is {shift}, expected a number"));
            }
            return Ok(Calibration::Temperature { temperature, shift });
        };
        if temperature.is_some() || shift.is_some() {
            return Err("expected either `isotonic`, or `temperature` and `shift`".to_owned());
        }
        MAX_HEAD_VALUES.check("`isotonic`", points.len())?;
        let is_rising = points.is_sorted_by(|[a, p], [b, q]| a < b && p <= q);
        let is_valid = points.iter().all(|[logit, p]| logit.is_finite() && (0.0..=1.0).contains(p));
        if points.is_empty() || !is_rising || !is_valid {
            return Err("`isotonic` is not a list of [log-odds, probability] in which both rise".to_owned());
        }
        Ok(Calibration::Isotonic(points))
    }
}

/// The file of a head: one or more labels, and what they mean.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFile {
    /// SHA-256 of the encoder's model file, in 64 hexadecimal digits.
    pub encoder: String,
    /// Heads of its labels.
    pub heads: Vec<Head>,
    /// Categories that its labels judge.
    pub categories: BTreeMap<String, Category>,
}

/// Keys of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadToml {
    encoder: String,
    labels: Vec<String>,
    weights: String,
    bias: Vec<f32>,
    #[serde(default)]
    calibration: BTreeMap<String, Calibration>,
    #[serde(default)]
    categories: BTreeMap<String, Category>,
    #[expect(dead_code, reason = "informative only")]
    data: Option<DataToml>,
}

/// Provenance of a head: the file that it was trained on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the types are checked")]
struct DataToml {
    sha256: String,
    examples: u64,
    positive: Option<u64>,
}

impl HeadFile {
    /// Parses a head's file.
    ///
    /// # Errors
    ///
    /// A message about the first problem, with its line if TOML reports one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: HeadToml = toml::from_str(text).map_err(|error| toml_message(&error))?;
        let HeadToml { encoder, labels, weights, bias, mut calibration, categories, data: _ } = file;
        MAX_HEAD_LABELS.check("`labels`", labels.len())?;
        if labels.is_empty() || labels.iter().any(|label| label.is_empty() || label.contains(['\n', '\r'])) {
            return Err("`labels` is not a list of names, expected at least one, each on one line".to_owned());
        }
        let unique: BTreeSet<_> = labels.iter().collect();
        if unique.len() != labels.len() {
            return Err("`labels` has the same label twice, expected each once".to_owned());
        }
        if bias.len() != labels.len() {
            let (found, expected) = (bias.len(), labels.len());
            return Err(format!("`bias` has {found} values, expected {expected}, one for each label"));
        }
        let bytes = BASE64_STANDARD.decode(&weights).map_err(|error| format!("`weights`: {error}"))?;
        let values: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if bytes.is_empty() || bytes.len() % (4 * labels.len()) != 0 {
            return Err(format!(
                "`weights` has {} bytes, expected rows of f32, as many as `labels`: {}",
                bytes.len(),
                labels.len()
            ));
        }
        let each = values.len() / labels.len();
        MAX_HEAD_VALUES.check("a row of `weights`", each)?;
        if values.iter().chain(&bias).any(|value| !value.is_finite()) {
            return Err("`weights` or `bias` has a value that is not a number".to_owned());
        }
        let rows = values.chunks_exact(each).map(<[f32]>::to_vec);
        let heads = labels.into_iter().zip(rows).zip(bias).map(|((label, weights), bias)| {
            let calibration = calibration.remove(&label).unwrap_or_default();
            Head { label, weights, bias, calibration }
        });
        let heads = heads.collect();
        if let Some(unknown) = calibration.keys().next() {
            return Err(format!("`calibration.{unknown}` is for a label that `labels` does not have"));
        }
        Ok(HeadFile { encoder, heads, categories })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rows: &[[f32; 2]], text: &str) -> String {
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        format!("encoder = \"aa\"\nweights = \"{}\"\n{text}", BASE64_STANDARD.encode(bytes))
    }

    #[test]
    fn file_has_a_head_for_each_label() {
        let text = file(
            &[[1.0, 2.0], [3.0, 4.0]],
            "labels = [\"spam\", \"ham\"]\nbias = [0.5, -1]\n[calibration.ham]\nisotonic = [[-1, 0.1], [1, 0.3]]\n\
             [categories.spam]\nmax = [\"spam\"]\nthreshold = 0.4\n[data]\nsha256 = \"bb\"\nexamples = 3\n",
        );
        let HeadFile { encoder, heads, categories } = HeadFile::parse(&text).unwrap();
        assert_eq!((encoder.as_str(), categories["spam"].threshold), ("aa", Some(0.4)));
        let [spam, ham] = &heads[..] else { panic!("{heads:?}") };
        assert_eq!((spam.label.as_str(), &spam.weights[..], spam.bias), ("spam", &[1.0, 2.0][..], 0.5));
        assert_eq!(spam.calibration, Calibration::default());
        assert_eq!(ham.calibration, Calibration::Isotonic(vec![[-1.0, 0.1], [1.0, 0.3]]));
    }

    #[test]
    fn calibrations_give_probabilities() {
        let temperature = Calibration::Temperature { temperature: 2.0, shift: 1.0 };
        assert!((temperature.probability(4.0) - 0.952_574).abs() < 1e-6);
        let isotonic = Calibration::Isotonic(vec![[-1.0, 0.125], [1.0, 0.375], [2.0, 0.875]]);
        for (logit, expected) in [
            (-9.0, 0.125),
            (-1.0, 0.125),
            (0.0, 0.25),
            (1.0, 0.375),
            (1.5, 0.625),
            (2.0, 0.875),
            (9.0, 0.875),
        ] {
            assert_eq!(isotonic.probability(logit), expected, "{logit}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let one = "labels = [\"a\"]\nbias = [0]\n";
        let cases = [
            (file(&[[1.0, 1.0]], "labels = []\nbias = []\n"), "`labels` is not a list of names"),
            (file(&[[1.0, 1.0]], "labels = [\"a\", \"a\"]\nbias = [0, 0]\n"), "the same label twice"),
            (file(&[[1.0, 1.0]], "labels = [\"a\"]\nbias = []\n"), "`bias` has 0 values, expected 1"),
            (file(&[], one), "`weights` has 0 bytes"),
            (
                file(&[[1.0, 1.0]], "labels = [\"a\", \"b\", \"c\"]\nbias = [0, 0, 0]\n"),
                "`weights` has 8 bytes",
            ),
            (file(&[[1.0, f32::NAN]], one), "a value that is not a number"),
            (file(&[[1.0, 1.0]], &format!("{one}[calibration.b]\n")), "`calibration.b` is for a label"),
            (file(&[[1.0, 1.0]], &format!("{one}[calibration.a]\ntemperature = 0\n")), "`temperature` is 0"),
            (
                file(&[[1.0, 1.0]], &format!("{one}[calibration.a]\nisotonic = [[0, 0.5], [1, 0.4]]\n")),
                "in which both rise",
            ),
            (
                file(&[[1.0, 1.0]], &format!("{one}[calibration.a]\nisotonic = [[0, 0.5]]\nshift = 1\n")),
                "expected either `isotonic`",
            ),
            (one.to_owned(), "missing field"),
        ];
        for (text, expected) in cases {
            let message = HeadFile::parse(&text).unwrap_err();
            assert!(message.contains(expected), "{message}\n{text}");
        }
    }
}
