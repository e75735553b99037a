//! Text models: texts in, scores or spans out. The host tokenizes.
//!
//! `wit/README.md` documents the tensors.

use crate::json::{Reader, Unexpected, push_array, push_string};
use crate::nn::{Model, ModelError, Outputs, u8_tensor};

/// Scores of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct TextScores {
    /// One row per text, one value per label of the model.
    pub values: Vec<f32>,
    /// Facts about each text.
    pub facts: Vec<TextFacts>,
}

/// Facts about how a model read a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// Number of tokens of the text.
    pub tokens: u32,
    /// Of these, tokens of the vocabulary. A model without any knows nothing about the text.
    pub known: u32,
    /// True if the model did not read the end of the text.
    pub is_truncated: bool,
}

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSpan {
    /// Index of the text.
    pub text: u32,
    /// Label, such as `EMAIL`.
    pub label: String,
    /// Probability of the label.
    pub score: f32,
    /// First character, in Unicode scalar values.
    pub start: u32,
    /// Character behind the last one.
    pub end: u32,
}

/// Scores `texts` with the text model that the configuration names `model`, which has `labels`
/// labels.
///
/// # Errors
///
/// When the host reports an error, or the model returns other outputs.
pub fn score<T: AsRef<str>>(model: &str, texts: &[T], labels: usize) -> Result<TextScores, ModelError> {
    read_scores(&run(model, texts)?, texts.len(), labels)
}

/// Finds labelled spans in `texts` with the token classifier that the configuration names `model`,
/// and returns its scores as well.
///
/// # Errors
///
/// As in [`score`].
pub fn spans<T: AsRef<str>>(
    model: &str,
    texts: &[T],
    labels: usize,
) -> Result<(TextScores, Vec<TextSpan>), ModelError> {
    let outputs = run(model, texts)?;
    let scores = read_scores(&outputs, texts.len(), labels)?;
    let json = outputs.text("spans")?;
    let spans = read_spans(&json).map_err(|error| outputs.unusable(format!("output `spans`: {error}")))?;
    Ok((scores, spans))
}

fn run<T: AsRef<str>>(model: &str, texts: &[T]) -> Result<Outputs, ModelError> {
    let mut json = String::new();
    push_array(&mut json, texts, |json, text| push_string(json, text.as_ref()));
    Model::open(model)?.run([("texts", u8_tensor(json.as_bytes()))])
}

fn read_scores(outputs: &Outputs, texts: usize, labels: usize) -> Result<TextScores, ModelError> {
    let values = outputs.scores("scores", texts as u32, labels as u32)?;
    let json = outputs.text("metadata")?;
    let facts = read_facts(&json).map_err(|error| outputs.unusable(format!("output `metadata`: {error}")))?;
    if facts.len() != texts {
        return Err(
            outputs.unusable(format!("output `metadata` has {} texts, expected {texts}", facts.len()))
        );
    }
    Ok(TextScores { values, facts })
}

fn read_facts(json: &str) -> Result<Vec<TextFacts>, Unexpected> {
    let mut facts = Vec::new();
    let mut reader = Reader::new(json);
    reader.object(&mut |reader, name| {
        let mut index = 0;
        let mut fact = |facts: &mut Vec<TextFacts>| {
            if facts.len() == index {
                facts.push(TextFacts::default());
            }
            index += 1;
            index - 1
        };
        match name {
            "tokens" | "known" => reader.array(&mut |reader| {
                let number = reader.number()? as u32;
                let at = fact(&mut facts);
                if name == "tokens" {
                    facts[at].tokens = number;
                } else {
                    facts[at].known = number;
                }
                Ok(())
            }),
            "truncated" => reader.array(&mut |reader| {
                let is_truncated = reader.boolean()?;
                let at = fact(&mut facts);
                facts[at].is_truncated = is_truncated;
                Ok(())
            }),
            _ => reader.skip(),
        }
    })?;
    reader.end()?;
    Ok(facts)
}

fn read_spans(json: &str) -> Result<Vec<TextSpan>, Unexpected> {
    let mut spans = Vec::new();
    let mut text = 0;
    let mut reader = Reader::new(json);
    reader.array(&mut |reader| {
        reader.array(&mut |reader| {
            let mut span = TextSpan { text, label: String::new(), score: 0.0, start: 0, end: 0 };
            reader.object(&mut |reader, name| {
                match name {
                    "label" => span.label = reader.string()?,
                    "score" => span.score = reader.number()? as f32,
                    "start" => span.start = reader.number()? as u32,
                    "end" => span.end = reader.number()? as u32,
                    _ => reader.skip()?,
                }
                Ok(())
            })?;
            spans.push(span);
            Ok(())
        })?;
        text += 1;
        Ok(())
    })?;
    reader.end()?;
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_per_text() {
        let json = r#"{"tokens":[3,0],"known":[2,0],"windows":[1,1],"truncated":[false,true]}"#;
        let facts = read_facts(json).unwrap();
        assert_eq!(facts[0], TextFacts { tokens: 3, known: 2, is_truncated: false });
        assert_eq!(facts[1], TextFacts { tokens: 0, known: 0, is_truncated: true });
        assert!(read_facts("[]").is_err());
    }

    #[test]
    fn spans_are_read_per_text() {
        let json = r#"[[],[{"label":"EMAIL","score":0.5,"start":3,"end":9}]]"#;
        let expected = TextSpan { text: 1, label: "EMAIL".to_owned(), score: 0.5, start: 3, end: 9 };
        assert_eq!(read_spans(json).unwrap(), [expected]);
    }
}
