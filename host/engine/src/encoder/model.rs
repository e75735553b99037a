//! A loaded text model.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use whatlang::Lang;

use super::canonical::{self, readings};
use super::embedding::embed;
use super::language::{foreign, languages};
use super::metadata::{Metadata, Undone, json, named_rows};
use super::readings::{Readings, drop_long_undone, facts, truncated};
use super::request::{Params, Request, Text, TextRole, request};
use super::rows::Columns;
use super::scores::Scoring;
use super::spans::{Span, merge, spans};
use super::tokenizer::{EncodeError, SharedFirst, TextTokenizer, check_length};
use super::values::{floats, numbers};
use crate::backend::Backend;
use crate::card::{Card, Emoji, Evasion, Task, TextSpec};
use crate::limits::{MAX_INLINE_TEXT_BYTES, MAX_ROWS, MAX_UNDONE_BYTES};
use crate::model::{Capacity, LoadError, Reply, RunError, Stats};
use crate::offload::Offload;
use crate::onnx::{OnnxModel, Row};
use crate::tensor::Tensor;
use crate::text::excerpt;
use crate::weights::{Bytes, DataFile};

/// Tokenizes long texts, for all models together.
static LONG_TEXTS: LazyLock<Offload> = LazyLock::new(Offload::new);

/// A text model. Dropping it stops its workers and waits for their computations.
pub(crate) struct Encoder {
    name: String,
    tokenizer: Arc<TextTokenizer>,
    onnx: OnnxModel,
    columns: Columns,
    scoring: Scoring,
    spec: TextSpec,
    /// Languages for which it was trained; empty if the card does not say.
    languages: Arc<[Lang]>,
    task: Task,
    labels: Vec<String>,
    /// Name of the output that is read.
    output: String,
}

impl Encoder {
    /// Loads the tokenizer and the model.
    ///
    /// # Errors
    ///
    /// When the tokenizer is invalid, or the model cannot be loaded or does not take its tokens.
    pub(crate) fn load(
        backend: &dyn Backend,
        name: &str,
        model: (Bytes, Vec<DataFile>),
        tokenizer: &[u8],
        card: &Card,
        capacity: &Capacity,
    ) -> Result<Self, LoadError> {
        let spec = card.text.clone().expect("a text model has the section `text`");
        let tokenizer = TextTokenizer::new(tokenizer, &spec)
            .map_err(|message| LoadError::Tokenizer { model: name.to_owned(), message })?;
        let paddings = Columns::paddings(card, &tokenizer);
        let onnx = OnnxModel::load(backend, name, model, card, capacity, &paddings)?;
        let columns = Columns::new(&onnx, &tokenizer, card)
            .map_err(|message| LoadError::Tokenizer { model: name.to_owned(), message })?;
        Ok(Encoder {
            name: name.to_owned(),
            tokenizer: Arc::new(tokenizer),
            onnx,
            columns,
            scoring: Scoring::new(card),
            languages: languages(&spec.languages).expect("a parsed card has known languages").into(),
            spec,
            task: card.task,
            labels: card.labels.clone(),
            output: card.outputs.first().map(|output| output.name.clone()).unwrap_or_default(),
        })
    }

    /// Implements [`crate::Model::run`] for texts.
    pub(crate) async fn run(
        &self,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let invalid = |message| RunError::InvalidInput { model: self.name.clone(), message };
        let Request { texts, params } = request(&self.name, inputs)?;
        let mut texts = self.encode(texts, params.role, deadline).await?;
        if let Some((index, tokens)) = truncated(&texts).filter(|_| !params.truncate) {
            return Err(invalid(format!(
                "text {index} has {tokens} tokens, expected at most {}, of which the tokenizer adds some; shorten it",
                self.spec.max_tokens
            )));
        }
        let plain = texts.iter().flat_map(Readings::plain).map(|tokens| tokens.windows.len()).sum::<usize>();
        drop_long_undone(&mut texts);
        let windows = || texts.iter().flatten().flat_map(|tokens| &tokens.windows);
        let rows = windows().map(|window| self.columns.row(window)).collect::<Result<Vec<Row>, _>>();
        let rows = rows.map_err(invalid)?;
        if plain > MAX_ROWS {
            return Err(RunError::TooLarge {
                model: self.name.clone(),
                message: format!(
                    "the texts have {} windows of {} tokens, expected at most {MAX_ROWS}; send them in pieces",
                    plain, self.spec.max_tokens
                ),
            });
        }
        let computed = self.onnx.run_rows(rows, self.columns.joined, deadline).await?;
        let failed = |message| RunError::Failed { model: self.name.clone(), message };
        let (mut metadata, usage) = facts(&texts);
        let mut outputs = match self.task {
            Task::TextEmbedding => self.embeddings(&texts, &computed, &params)?,
            Task::TokenClassification => self.spans(&texts, &computed).map_err(failed)?,
            _ => self.scores(&texts, &computed, params.raw, &mut metadata).map_err(failed)?,
        };
        outputs.push(("metadata".to_owned(), json(&metadata).map_err(failed)?));
        self.onnx.count(usage);
        Ok(Reply {
            outputs,
            queue: computed.iter().map(|reply| reply.queue).min().unwrap_or_default(),
            compute: computed.iter().map(|reply| reply.compute).max().unwrap_or_default(),
            batch: computed.iter().map(|reply| reply.batch).max().unwrap_or_default(),
            usage: None,
        })
    }

    /// Tokenizes the texts: short ones here, long ones on a thread that may block.
    async fn encode(
        &self,
        texts: Vec<Text>,
        role: Option<TextRole>,
        deadline: Instant,
    ) -> Result<Vec<Readings>, RunError> {
        let bytes: usize = texts.iter().map(Text::bytes).sum();
        let prefix = match role {
            None => "",
            Some(TextRole::Query) => &self.spec.query_prefix,
            Some(TextRole::Document) => &self.spec.document_prefix,
        };
        let job = Encoding {
            tokenizer: self.tokenizer.clone(),
            prefix: prefix.to_owned(),
            canonical: self.spec.canonical.then_some((self.spec.emoji, self.spec.evasion)),
            offsets: self.task == Task::TokenClassification,
            languages: self.languages.clone(),
        };
        let encoded = if bytes <= MAX_INLINE_TEXT_BYTES {
            job.encode(texts, &mut SharedFirst::default())
        } else {
            let late = |_| RunError::Deadline { model: self.name.clone() };
            tokio::time::timeout_at(deadline.into(), job.encode_in_turns(texts)).await.map_err(late)?
        };
        encoded.map_err(|error| match error {
            EncodeError::TooLarge(message) => RunError::TooLarge { model: self.name.clone(), message },
            EncodeError::Invalid(message) => RunError::InvalidInput { model: self.name.clone(), message },
        })
    }

    /// The output of a reply that the card names first.
    fn output<'r>(&self, reply: &'r Reply) -> Result<&'r Tensor, String> {
        let found = reply.outputs.iter().find(|(name, _)| *name == self.output);
        found.map(|(_, tensor)| tensor).ok_or_else(|| format!("the model has no output `{}`", self.output))
    }

    fn scores(
        &self,
        texts: &[Readings],
        computed: &[Reply],
        raw: bool,
        metadata: &mut Metadata,
    ) -> Result<Vec<(String, Tensor)>, String> {
        let mut computed = computed.iter();
        let mut scores = Vec::new();
        for (text, readings) in texts.iter().enumerate() {
            let mut rows = Vec::with_capacity(readings.all.len());
            for tokens in readings {
                let windows = tokens.windows.iter().zip(&mut computed).map(|(window, reply)| {
                    let tokens = window.ids.len().max(1);
                    let scores = self.scoring.scores(self.output(reply)?, tokens, &self.spec, raw)?;
                    Ok((scores, window.ids.len()))
                });
                rows.push(self.scoring.combine(&windows.collect::<Result<Vec<_>, String>>()?));
            }
            let worst = self.scoring.worst(rows.iter());
            let plain = self.scoring.worst(rows[..readings.plain().len()].iter());
            if let Some(reading) = &readings.undone {
                let labels = self.different(&plain, &worst);
                let undone = Undone { text, reading: reading.clone(), labels };
                metadata.undone.extend(Some(undone).filter(|undone| !undone.labels.is_empty()));
            }
            scores.extend(worst);
        }
        Ok(vec![named_rows("scores", texts.len(), &scores)?])
    }

    /// Labels whose scores differ.
    fn different(&self, one: &[f32], two: &[f32]) -> Vec<String> {
        let scores = self.labels.iter().zip(one.iter().zip(two));
        scores.filter(|(_, (one, two))| one != two).map(|(label, _)| label.clone()).collect()
    }

    fn embeddings(
        &self,
        texts: &[Readings],
        computed: &[Reply],
        params: &Params,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let invalid = |message| RunError::InvalidInput { model: self.name.clone(), message };
        let windows = texts.iter().flatten().flat_map(|tokens| &tokens.windows);
        let mut embeddings = Vec::new();
        for (window, reply) in windows.zip(computed) {
            let output = self.output(reply).map_err(invalid)?;
            let tokens = window.ids.len().max(1);
            embeddings.extend(embed(output, tokens, &self.spec, params.dimensions).map_err(invalid)?);
        }
        Ok(vec![named_rows("embeddings", texts.len(), &embeddings).map_err(invalid)?])
    }

    fn spans(&self, texts: &[Readings], computed: &[Reply]) -> Result<Vec<(String, Tensor)>, String> {
        let mut computed = computed.iter();
        let (mut all, mut scores): (Vec<Vec<Span>>, Vec<f32>) = (Vec::new(), Vec::new());
        for tokens in texts.iter().flatten() {
            let (mut found, mut highest) = (Vec::new(), vec![0.0_f32; self.labels.len()]);
            for (window, reply) in tokens.windows.iter().zip(&mut computed) {
                let mut values = floats(self.output(reply)?)?;
                found.extend(spans(window, &mut values, &self.labels));
                numbers(&values)?;
                let rows = values.chunks_exact(self.labels.len().max(1)).zip(&window.added);
                for (row, _) in rows.filter(|(_, added)| !**added) {
                    highest.iter_mut().zip(row).for_each(|(highest, score)| *highest = highest.max(*score));
                }
            }
            all.push(merge(found));
            scores.extend(highest);
        }
        Ok(vec![("spans".to_owned(), json(&all)?), named_rows("scores", texts.len(), &scores)?])
    }

    pub(crate) fn queue_depth(&self) -> usize {
        self.onnx.queue_depth()
    }

    pub(crate) fn unbatched(&self) -> Option<&str> {
        self.onnx.unbatched()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.onnx.stats()
    }
}

/// Conversion of texts to tokens, without the model.
struct Encoding {
    tokenizer: Arc<TextTokenizer>,
    prefix: String,
    /// Emoji and evasive spellings in the canonical form, if texts are read in it.
    canonical: Option<(Emoji, Evasion)>,
    offsets: bool,
    /// Languages for which the model was trained; empty if the card does not say.
    languages: Arc<[Lang]>,
}

impl Encoding {
    fn encode(&self, texts: Vec<Text>, first: &mut SharedFirst) -> Result<Vec<Readings>, EncodeError> {
        texts.into_iter().map(|text| self.readings(text, first)).collect()
    }

    /// Encodes on threads that may block, piece by piece: calls take turns, and one that is dropped
    /// ends with its piece.
    async fn encode_in_turns(self, texts: Vec<Text>) -> Result<Vec<Readings>, EncodeError> {
        let (encoding, mut all, mut first) = (Arc::new(self), Vec::new(), SharedFirst::default());
        for piece in pieces(texts) {
            let encoding = encoding.clone();
            let ended = LONG_TEXTS.run(move || (encoding.encode(piece, &mut first), first)).await;
            let (encoded, used) = ended.map_err(|error| EncodeError::Invalid(error.to_string()))?;
            all.extend(encoded?);
            first = used;
        }
        Ok(all)
    }

    fn readings(&self, text: Text, first: &mut SharedFirst) -> Result<Readings, EncodeError> {
        let foreign = match &text {
            Text::Single(text) | Text::Pair(text, _) => foreign(text, &self.languages),
            Text::Tokens(_) => None,
        };
        let text = match text {
            Text::Single(text) if !self.prefix.is_empty() => Text::Single(format!("{}{text}", self.prefix)),
            other => other,
        };
        match (text, self.canonical) {
            (Text::Single(text), Some((emoji, evasion))) => {
                check_length(&text)?;
                let encode = |reading| self.tokenizer.encode(&Text::Single(reading), self.offsets);
                let canonical::Readings { canonical, undone } = readings(&text, emoji, evasion);
                let mut all = canonical.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
                let start = undone.as_ref().map(|undone| excerpt(undone, MAX_UNDONE_BYTES).into_owned());
                // A text is not rejected for a reading that is longer than itself.
                let undone = undone.and_then(|undone| encode(undone).ok());
                let start = start.filter(|_| undone.is_some());
                all.extend(undone);
                Ok(Readings { all, undone: start, foreign })
            }
            (text, _) => {
                let tokens = self.tokenizer.encode_next(&text, self.offsets, first)?;
                Ok(Readings { all: vec![tokens], undone: None, foreign })
            }
        }
    }
}

/// Splits `texts` into pieces of at most [`MAX_INLINE_TEXT_BYTES`], or of one longer text.
fn pieces(texts: Vec<Text>) -> Vec<Vec<Text>> {
    let (mut pieces, mut bytes): (Vec<Vec<Text>>, usize) = (Vec::new(), 0);
    for text in texts {
        bytes += text.bytes();
        match pieces.last_mut() {
            Some(piece) if bytes <= MAX_INLINE_TEXT_BYTES => piece.push(text),
            _ => {
                bytes = text.bytes();
                pieces.push(vec![text]);
            }
        }
    }
    pieces
}
