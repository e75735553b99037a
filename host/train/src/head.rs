//! The file of a head.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::calibration::Calibration;
use crate::dataset::Dataset;
use crate::logistic::Regression;

/// A head with one label.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// SHA-256 of the encoder's model file, in 64 hexadecimal digits.
    pub encoder: &'a str,
    /// Name of the label, and of the category that it judges.
    pub label: &'a str,
    /// Logit of an embedding.
    pub regression: &'a Regression,
    /// Probability of a logit.
    pub calibration: Option<Calibration>,
    /// Minimum probability at which content is flagged.
    pub threshold: f64,
    /// The data that it was trained on.
    pub data: &'a Dataset,
    /// Examples that it was trained on.
    pub examples: usize,
    /// Of these, positive ones.
    pub positive: usize,
}

impl Head<'_> {
    /// Returns the head as TOML: the weights as base64 of little-endian f32.
    pub fn to_toml(&self) -> String {
        let Head { encoder, label, regression, calibration, threshold, data, examples, positive } = self;
        let bytes: Vec<u8> =
            regression.weights.iter().flat_map(|weight| (*weight as f32).to_le_bytes()).collect();
        let key = quoted(label);
        let mut text = String::from("# Written by `infer train`.\n");
        let mut line = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string takes all text");
            text.push('\n');
        };
        line(format_args!("# SHA-256 of the model file whose embeddings it reads."));
        line(format_args!("encoder = {}", quoted(encoder)));
        line(format_args!("labels = [{key}]"));
        line(format_args!("weights = \"{}\"", STANDARD.encode(bytes)));
        line(format_args!("bias = [{:?}]", regression.bias as f32));
        if let Some(Calibration { temperature, shift }) = calibration {
            line(format_args!("\n# The probability is sigmoid(logit / temperature + shift)."));
            line(format_args!("[calibration.{key}]"));
            line(format_args!("temperature = {:?}", *temperature as f32));
            line(format_args!("shift = {:?}", *shift as f32));
        }
        line(format_args!("\n[categories.{key}]"));
        line(format_args!("max = [{key}]"));
        line(format_args!("threshold = {:?}", *threshold as f32));
        let source = format!("{}, {} examples", data.name, grouped(*examples));
        line(format_args!("data = {}", quoted(&source)));
        line(format_args!("\n[data]"));
        line(format_args!("sha256 = {}", quoted(&data.sha256)));
        line(format_args!("examples = {examples}"));
        line(format_args!("positive = {positive}"));
        text
    }
}

/// The text as a string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The number with a comma after each three digits.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_every_part() {
        let data = Dataset {
            name: "a \"b\"\n.jsonl".to_owned(),
            sha256: "ab".repeat(32),
            examples: Vec::new(),
            other_labels: Default::default(),
        };
        let head = Head {
            encoder: &"01".repeat(32),
            label: "hate/threatening",
            regression: &Regression { weights: vec![0.5, -2.0], bias: -1.25 },
            calibration: Some(Calibration { temperature: 1.5, shift: -3.0 }),
            threshold: 0.625,
            data: &data,
            examples: 1_234_567,
            positive: 89,
        };
        let text = head.to_toml();
        let read = infer_engine::HeadFile::parse(&text).unwrap();
        let calibration = infer_engine::Calibration::Temperature { temperature: 1.5, shift: -3.0 };
        let (label, weights) = ("hate/threatening".to_owned(), vec![0.5, -2.0]);
        assert_eq!(read.heads, [infer_engine::Head { label, weights, bias: -1.25, calibration }]);
        assert_eq!((read.encoder, read.categories.len()), ("01".repeat(32), 1));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["labels"][0].as_str(), Some("hate/threatening"));
        let weights = STANDARD.decode(table["weights"].as_str().unwrap()).unwrap();
        assert_eq!(weights, [0.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        assert_eq!(table["bias"][0].as_float(), Some(-1.25));
        assert_eq!(table["calibration"]["hate/threatening"]["shift"].as_float(), Some(-3.0));
        let category = &table["categories"]["hate/threatening"];
        assert_eq!(category["threshold"].as_float(), Some(0.625));
        assert_eq!(category["data"].as_str(), Some("a \"b\"\n.jsonl, 1,234,567 examples"));
        assert_eq!(table["data"]["positive"].as_integer(), Some(89));
    }
}
