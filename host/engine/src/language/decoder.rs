//! The decoder: one graph for every architecture, many sequences in one pass.
//!
//! Each layer is attention over the key-value blocks and a gated feed-forward network. Both follow
//! an RMS norm, and both are added to the residual stream (Llama; [`DecoderConfig`] holds the
//! differences of other families). The rows of a pass are tokens of any number of sequences.
//! Matrix products treat all rows alike; attention receives the ranges of rows that belong to each
//! sequence.

mod experts;
mod layer;
mod load;
mod products;

use std::path::{Path, PathBuf};

use infer_kernels::{
    Activations, AttentionShape, Chunk, Destination, Pool, QuantizedMatrix, Rope, Span, WeightType, Write,
    attention, dequantize_row, rms_norm, rope_and_store, soft_cap,
};

use super::config::DecoderConfig;
use super::gguf::{Gguf, GgufError};
use super::kv::Sequence;
use super::packed::{self, MatrixSpec};
use crate::weights::PackedSlot;
use layer::{Layer, Scratch};
pub(super) use load::matrices;
use load::{LayerMatrices, Loader, check_known, head};
use products::room;

/// A loaded decoder with the buffers of a pass.
pub(super) struct Decoder {
    config: DecoderConfig,
    vocabulary: usize,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    /// Weights of the last norm, multiplied by the scale of the logits.
    norm: Vec<f32>,
    head: QuantizedMatrix,
    ropes: Vec<Rope>,
    packed_file: Option<PathBuf>,
    pool: Pool,
    buffers: Buffers,
}

/// The threads that pack a model's weights, and the cache slot for the packed file.
pub(super) struct Packing {
    pub(super) pool: Pool,
    pub(super) slot: Option<PackedSlot>,
}

/// The tokens of one sequence that a pass computes: from position `start` to the end.
pub(super) struct Run<'s> {
    pub(super) sequence: &'s mut Sequence,
    /// First position whose keys and values are not computed yet.
    pub(super) start: usize,
    /// Number of trailing positions whose hidden states are kept for [`Decoder::logits`].
    pub(super) logit_rows: usize,
}

/// The table of token embeddings. It stays in the file, because a pass reads only a few of its
/// rows.
struct Embeddings {
    gguf: Gguf,
    ty: WeightType,
    row_bytes: usize,
    scale: f32,
}

#[derive(Default)]
struct Buffers {
    /// The residual stream, (rows, hidden).
    stream: Vec<f32>,
    /// (rows, qkv columns).
    qkv: Vec<f32>,
    /// Input of a layer's first products, (rows, hidden); then the output of the attention heads,
    /// (rows, query heads × head size).
    activations: Activations,
    scratch: Scratch,
    /// Hidden states after the last norm, (kept rows, hidden).
    hidden: Vec<f32>,
    /// (rows of one call, vocabulary).
    logits: Vec<f32>,
}

impl Decoder {
    /// Packs the weights of `gguf`, or maps the file that an earlier start has packed. Packed data
    /// is not kept resident a second time.
    ///
    /// # Errors
    ///
    /// If a tensor is missing, has another shape than the metadata says, or has an unsupported
    /// type.
    pub(super) fn load(
        gguf: Gguf,
        config: DecoderConfig,
        vocabulary: usize,
        packing: Packing,
    ) -> Result<Self, GgufError> {
        let hidden = config.hidden;
        let table = gguf.require_tensor("token_embd.weight", &[vocabulary, hidden])?;
        let (ty, row_bytes) = (table.ty, table.data.len() / vocabulary);
        let head = head(&gguf, &config, vocabulary)?;
        let layers = (0..config.layers)
            .map(|index| LayerMatrices::of(&gguf, &config, index))
            .collect::<Result<Vec<_>, _>>()?;
        check_known(&gguf, config.family, &layers, &head)?;
        let Packing { pool, slot } = packing;
        let packed = match &slot {
            Some(slot) => {
                let specs: Vec<&MatrixSpec> =
                    layers.iter().flat_map(LayerMatrices::all).chain([&head]).collect();
                packed::matrices(slot, &specs, &gguf, &pool)?
            }
            None => None,
        };
        let loader = Loader { gguf: &gguf, pool: &pool, packed: packed.as_ref() };
        let layers = layers.iter().enumerate().map(|(index, layer)| loader.layer(&config, index, layer));
        let layers = layers.collect::<Result<_, _>>()?;
        let mut norm = loader.vector("output_norm.weight", hidden)?;
        norm.iter_mut().for_each(|weight| *weight *= config.logit_scale);
        let head = loader.matrix(&head)?;
        let ropes = config.ropes.iter().map(|rope| rope.build(config.context)).collect();
        // Everything except the embeddings has been read by now.
        gguf.check_unchanged()?;
        let embeddings = Embeddings { gguf, ty, row_bytes, scale: config.embedding_scale };
        Ok(Decoder {
            config,
            vocabulary,
            embeddings,
            layers,
            norm,
            head,
            ropes,
            packed_file: packed.map(|packed| packed.path().to_owned()),
            pool,
            buffers: Buffers::default(),
        })
    }

    pub(super) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The file that the packed weights are mapped from, or `None` if they are in this process's
    /// memory.
    pub(super) fn packed_file(&self) -> Option<&Path> {
        self.packed_file.as_deref()
    }

    /// Size of the packed weights in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        self.layers.iter().map(Layer::size_bytes).sum::<usize>() + self.head.size_bytes()
    }

    /// Computes the keys and values of each run's new tokens, and keeps the requested hidden states
    /// in the order of the runs, and of the positions within each run.
    ///
    /// Tokens must be below the size of the vocabulary, and positions below the context.
    pub(super) fn forward(&mut self, runs: &mut [Run<'_>]) {
        let Decoder { config, layers, pool, ropes, buffers, .. } = self;
        let hidden = config.hidden;
        let rows: usize = runs.iter().map(Run::rows).sum();
        let columns = config.attention.qkv_columns();
        let width = config.attention.out_columns();
        let last = layers.len() - 1;
        let positions = runs.iter().map(|run| run.sequence.len()).max().unwrap_or(0);
        ropes.iter_mut().for_each(|rope| rope.prepare(positions));
        let Buffers { stream, qkv, activations, scratch, .. } = buffers;
        let stream = room(stream, rows * hidden);
        let qkv = room(qkv, rows * columns);
        self.embeddings.gather(runs, stream);
        for (index, layer) in layers.iter().enumerate() {
            activations.set_rms_norm(pool, stream, &layer.attention_norm, config.epsilon, rows);
            layer.qkv.apply(pool, activations, qkv);
            let mut row = 0;
            let mut destinations: Vec<Destination<'_>> = Vec::new();
            for run in runs.iter_mut() {
                let rows = run.rows();
                destinations.extend(run.sequence.destinations(index, run.start, row));
                row += rows;
            }
            let (shape, rope) = (config.attention_of(index), &ropes[config.reach[index].rope]);
            let norms = layer.head_norms(config.epsilon);
            rope_and_store(pool, &shape, rope, norms, qkv, &mut destinations);
            // Nothing reads the last layer's results of other rows than those that are kept.
            let mut computed: fn(&Run<'_>) -> usize = |run| run.rows();
            if index == last {
                compact(runs, hidden, stream);
                compact(runs, columns, qkv);
                computed = |run| run.logit_rows;
            }
            let rows = runs.iter().map(computed).sum();
            if rows == 0 {
                break;
            }
            let stream = &mut stream[..rows * hidden];
            attend(pool, &shape, index, runs, computed, qkv, activations.room(rows, width));
            layer.attention_output.add(pool, activations, stream, &mut scratch.branch);
            activations.set_rms_norm(pool, stream, &layer.feed_forward_norm, config.epsilon, rows);
            layer.feed_forward.add(pool, config.family.activation, activations, stream, scratch);
        }
        self.keep(runs.iter().map(|run| run.logit_rows).sum());
    }

    /// Norms the hidden states of `rows` rows, which are the first of the stream.
    fn keep(&mut self, rows: usize) {
        let hidden = self.config.hidden;
        let Buffers { stream, hidden: states, .. } = &mut self.buffers;
        states.resize(rows * hidden, 0.0);
        for (row, state) in stream.chunks_exact(hidden).zip(states.chunks_exact_mut(hidden)) {
            rms_norm(row, &self.norm, self.config.epsilon, state);
        }
    }

    /// Logits of `rows` hidden states that the last pass kept, from index `first`: (rows,
    /// vocabulary).
    pub(super) fn logits(&mut self, first: usize, rows: usize) -> &mut [f32] {
        let hidden = self.config.hidden;
        let Buffers { hidden: states, activations, logits, .. } = &mut self.buffers;
        activations.set(&self.pool, &states[first * hidden..][..rows * hidden], rows, hidden);
        logits.resize(rows * self.vocabulary, 0.0);
        self.head.matmul(&self.pool, activations, logits, self.vocabulary, Write::Set);
        if let Some(cap) = self.config.logit_cap {
            soft_cap(&self.pool, cap, logits);
        }
        logits
    }
}

impl Run<'_> {
    pub(super) fn rows(&self) -> usize {
        self.sequence.len() - self.start
    }
}

/// Moves the rows of each run whose hidden states are kept to the front.
fn compact(runs: &[Run<'_>], columns: usize, values: &mut [f32]) {
    let (mut end, mut kept) = (0, 0);
    for run in runs {
        end += run.rows();
        values.copy_within((end - run.logit_rows) * columns..end * columns, kept * columns);
        kept += run.logit_rows;
    }
}

/// Attention of the last `computed` rows of each run, which follow each other in `qkv` and in
/// `out`.
fn attend(
    pool: &Pool,
    shape: &AttentionShape,
    layer: usize,
    runs: &[Run<'_>],
    computed: fn(&Run<'_>) -> usize,
    qkv: &[f32],
    out: &mut [f32],
) {
    let spans: Vec<Vec<Span<'_>>> = runs.iter().map(|run| run.sequence.spans(layer).collect()).collect();
    let mut row = 0;
    let chunks: Vec<Chunk<'_>> = runs
        .iter()
        .zip(&spans)
        .map(|(run, spans)| {
            let rows = row..row + computed(run);
            row = rows.end;
            Chunk { position: run.sequence.len() - rows.len(), rows, spans }
        })
        .collect();
    attention(pool, shape, qkv, &chunks, out);
}

impl Embeddings {
    /// Writes the embeddings of the runs' new tokens to `out`, (rows, hidden).
    fn gather(&self, runs: &[Run<'_>], out: &mut [f32]) {
        let hidden = out.len() / runs.iter().map(Run::rows).sum::<usize>().max(1);
        let table = self.gguf.tensor("token_embd.weight");
        let table = table.expect("the table was found at load").data;
        let tokens = runs.iter().flat_map(|run| &run.sequence.tokens()[run.start..]);
        for (token, out) in tokens.zip(out.chunks_exact_mut(hidden)) {
            let row = &table[*token as usize * self.row_bytes..][..self.row_bytes];
            dequantize_row(self.ty, row, out);
            if self.scale != 1.0 {
                out.iter_mut().for_each(|value| *value *= self.scale);
            }
        }
    }
}
