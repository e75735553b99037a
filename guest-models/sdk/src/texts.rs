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
    /// Readings with evasive spellings undone that decide scores.
    pub undone: Vec<Undone>,
}

/// A reading of a text in which evasive spellings (`1d10t`) are undone, and whose scores count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Index of the text.
    pub text: usize,
    /// Beginning of the reading.
    pub reading: String,
    /// Labels whose scores are those of the reading.
    pub labels: Vec<String>,
}

/// Facts about how a model read a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// Number of tokens of the text.
    pub tokens: u32,
    /// Of these, tokens of the vocabulary. A model without any knows nothing about the text.
    pub known: u32,
    /// Number of windows that were computed.
    pub windows: u32,
    /// True if the model did not read the end of the text.
    pub is_truncated: bool,
    /// English name of its language, if the model was not trained for it.
    pub foreign: Option<String>,
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
    let (facts, undone) =
        read_facts(&json).map_err(|error| outputs.unusable(format!("output `metadata`: {error}")))?;
    if facts.len() != texts {
        return Err(
            outputs.unusable(format!("output `metadata` has {} texts, expected {texts}", facts.len()))
        );
    }
    Ok(TextScores { values, facts, undone })
}

fn read_facts(json: &str) -> Result<(Vec<TextFacts>, Vec<Undone>), Unexpected> {
    let (mut facts, mut undone) = (Vec::new(), Vec::new());
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
            "tokens" | "known" | "windows" => reader.array(&mut |reader| {
                let number = reader.number()? as u32;
                let at = fact(&mut facts);
                match name {
                    "tokens" => facts[at].tokens = number,
                    "known" => facts[at].known = number,
                    _ => facts[at].windows = number,
                }
                Ok(())
            }),
            "truncated" => reader.array(&mut |reader| {
                let is_truncated = reader.boolean()?;
                let at = fact(&mut facts);
                facts[at].is_truncated = is_truncated;
                Ok(())
            }),
            "foreign" => reader.array(&mut |reader| {
                let name = reader.string()?;
                let at = fact(&mut facts);
                facts[at].foreign = Some(name).filter(|name| !name.is_empty());
                Ok(())
            }),
            "undone" => reader.array(&mut |reader| {
                undone.push(read_undone(reader)?);
                Ok(())
            }),
            _ => reader.skip(),
        }
    })?;
    reader.end()?;
    Ok((facts, undone))
}

fn read_undone(reader: &mut Reader<'_>) -> Result<Undone, Unexpected> {
    let mut undone = Undone::default();
    reader.object(&mut |reader, name| match name {
        "text" => {
            undone.text = reader.number()? as usize;
            Ok(())
        }
        "reading" => {
            undone.reading = reader.string()?;
            Ok(())
        }
        "labels" => reader.array(&mut |reader| {
            undone.labels.push(reader.string()?);
            Ok(())
        }),
        _ => reader.skip(),
    })?;
    Ok(undone)
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
        let json = r#"{"tokens":[3,0],"known":[2,0],"windows":[1,1],"truncated":[false,true],"foreign":["","German"]}"#;
        let (facts, undone) = read_facts(json).unwrap();
        assert!(undone.is_empty());
        assert_eq!(facts[0], TextFacts { tokens: 3, known: 2, windows: 1, ..TextFacts::default() });
        let foreign = Some("German".to_owned());
        assert_eq!(facts[1], TextFacts { tokens: 0, known: 0, windows: 1, is_truncated: true, foreign });
        assert!(read_facts("[]").is_err());
    }

    #[test]
    fn undone_readings_name_their_text() {
        let json = r#"{"tokens":[3,1],"undone":[{"text":1,"reading":"you idiot","labels":["insult"]}]}"#;
        let expected = Undone { text: 1, reading: "you idiot".to_owned(), labels: vec!["insult".to_owned()] };
        assert_eq!(read_facts(json).unwrap().1, [expected]);
    }

    #[test]
    fn spans_are_read_per_text() {
        let json = r#"[[],[{"label":"EMAIL","score":0.5,"start":3,"end":9}]]"#;
        let expected = TextSpan { text: 1, label: "EMAIL".to_owned(), score: 0.5, start: 3, end: 9 };
        assert_eq!(read_spans(json).unwrap(), [expected]);
    }
}
