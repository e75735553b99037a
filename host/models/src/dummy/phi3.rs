//! Writes a Phi-3 Mini with random weights.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use infer_engine::files::Folder;
use sha2::{Digest as _, Sha256};

use super::blocks::{BlockType, Random};
use super::header::Tensor;
use crate::disk;

/// Warning before the answers of a model with random weights.
pub const WARNING: &str = "DUMMY: this model's weights are random, so its answers mean nothing";

/// The mix of types that a file's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// llama.cpp's Q4_K_M: Q4_K with some Q5_K and Q6_K
    #[value(name = "q4_k_m")]
    Q4KM,
    /// Q4_0, and Q6_K for the output
    #[value(name = "q4_0")]
    Q4_0,
    /// Q8_0
    #[value(name = "q8_0")]
    Q8_0,
    /// Q5_1, and Q6_K for the output, like the following
    #[value(name = "q5_1")]
    Q5_1,
    /// Q2_K
    #[value(name = "q2_k_s")]
    Q2KS,
    /// Q3_K
    #[value(name = "q3_k_s")]
    Q3KS,
    /// IQ4_NL
    #[value(name = "iq4_nl")]
    Iq4Nl,
    /// IQ4_XS
    #[value(name = "iq4_xs")]
    Iq4Xs,
    /// MXFP4
    #[value(name = "mxfp4")]
    Mxfp4,
    /// BF16, also for the output
    #[value(name = "bf16")]
    Bf16,
}

impl Mix {
    /// Name on the command line and in file names.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Value of `general.file_type`, in llama.cpp's numbers.
    fn file_type(self) -> u32 {
        self.entry().1
    }

    /// Name, number of the file type, and type of most matrices.
    fn entry(self) -> (&'static str, u32, BlockType) {
        match self {
            Mix::Q4KM => ("q4_k_m", 15, BlockType::Q4K),
            Mix::Q4_0 => ("q4_0", 2, BlockType::Q4_0),
            Mix::Q8_0 => ("q8_0", 7, BlockType::Q8_0),
            Mix::Q5_1 => ("q5_1", 9, BlockType::Q5_1),
            Mix::Q2KS => ("q2_k_s", 21, BlockType::Q2K),
            Mix::Q3KS => ("q3_k_s", 11, BlockType::Q3K),
            Mix::Iq4Nl => ("iq4_nl", 25, BlockType::Iq4Nl),
            Mix::Iq4Xs => ("iq4_xs", 30, BlockType::Iq4Xs),
            Mix::Mxfp4 => ("mxfp4", 38, BlockType::Mxfp4),
            Mix::Bf16 => ("bf16", 32, BlockType::Bf16),
        }
    }

    /// Type of a matrix, as llama.cpp's quantiser chooses it for phi3; without its exceptions for
    /// types of fewer bits.
    fn type_of(self, tensor: &str, layer: usize, layers: usize) -> BlockType {
        // The first and last eighth of the layers, and every third between them, get more bits.
        let more =
            layer < layers / 8 || layer >= 7 * layers / 8 || (layer.saturating_sub(layers / 8)) % 3 == 2;
        match (self, tensor) {
            (Mix::Q8_0 | Mix::Bf16, _) => self.entry().2,
            (_, "output.weight") => BlockType::Q6K,
            (Mix::Q4KM, "attn_qkv.weight") => BlockType::Q5K,
            (Mix::Q4KM, "ffn_down.weight") if more => BlockType::Q6K,
            _ => self.entry().2,
        }
    }
}

/// Hyper-parameters that determine the shapes of tensors.
struct Sizes {
    vocabulary: usize,
    embedding: usize,
    feed_forward: usize,
    layers: usize,
}

/// Phi-3 Mini, as in the header of weights/phi3/vocab.gguf.
const PHI3: Sizes = Sizes { vocabulary: 32_064, embedding: 3_072, feed_forward: 8_192, layers: 32 };

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal. Equal seeds and mixes give equal files.
    pub sha256: String,
}

/// Writes a Phi-3 Mini with random weights to `path`. The file appears there only when it is
/// complete.
///
/// # Errors
///
/// If the disk has too little space, or cannot be written.
pub fn phi3(path: &Path, mix: Mix, seed: u64) -> anyhow::Result<Written> {
    let tensors = tensors(&PHI3, mix);
    let header = super::header::write(&tensors, mix.file_type())?;
    let total = header.len() as u64 + tensors.iter().map(|tensor| tensor.bytes() as u64).sum::<u64>();
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    let (folder, place) = Folder::of(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    let name = place.to_string_lossy();
    disk::require_space(&folder, &name, total)?;
    // A fixed name, so that the next run overwrites the gigabytes that a killed run has left.
    let partial = format!(".{name}.partial");
    let write = || -> io::Result<Written> {
        disk::check_replaceable(&folder, &place)?;
        folder.remove_all(&partial)?;
        let file = folder.create_file(&partial, 0o666)?;
        let handle = file.try_clone()?;
        let bar = ProgressBar::new(total).with_prefix(name.to_string());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        let mut out = Hashed { out: bar.wrap_write(BufWriter::new(file)), hash: Sha256::new(), bytes: 0 };
        out.write_all(&header)?;
        weights(&tensors, seed, &mut out)?;
        out.flush()?;
        handle.sync_all()?;
        folder.rename(&partial, &folder, &place)?;
        bar.finish_and_clear();
        let sha256 = out.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { bytes: out.bytes, sha256 })
    };
    write().with_context(|| format!("cannot write `{}`", path.display())).inspect_err(|_| {
        let _ = folder.remove_file(&partial);
    })
}

/// Returns all tensors, in the order of the file.
fn tensors(sizes: &Sizes, mix: Mix) -> Vec<Tensor> {
    let Sizes { vocabulary, embedding, feed_forward, layers } = *sizes;
    let matrix = |name: String, rows, columns, ty| Tensor { name, rows, columns, ty };
    let norm = |name: String| Tensor { name, rows: 1, columns: embedding, ty: BlockType::F32 };
    let of = |name, layer| mix.type_of(name, layer, layers);
    let mut all = vec![matrix("token_embd.weight".into(), vocabulary, embedding, of("token_embd.weight", 0))];
    for layer in 0..layers {
        let shapes = [
            ("attn_qkv.weight", 3 * embedding, embedding),
            ("attn_output.weight", embedding, embedding),
            ("ffn_up.weight", 2 * feed_forward, embedding),
            ("ffn_down.weight", embedding, feed_forward),
        ];
        all.push(norm(format!("blk.{layer}.attn_norm.weight")));
        all.push(norm(format!("blk.{layer}.ffn_norm.weight")));
        for (name, rows, columns) in shapes {
            all.push(matrix(format!("blk.{layer}.{name}"), rows, columns, of(name, layer)));
        }
    }
    all.push(norm("output_norm.weight".into()));
    all.push(matrix("output.weight".into(), vocabulary, embedding, of("output.weight", 0)));
    all
}

/// Writes the tensors' data. Each tensor has its own random sequence, independent of the others.
fn weights(tensors: &[Tensor], seed: u64, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let mut random = Random::new(seed, index as u64);
        let row = tensor.bytes() / tensor.rows;
        buffer.resize(row, 0);
        for _ in 0..tensor.rows {
            tensor.ty.fill(&mut random, &mut buffer);
            out.write_all(&buffer)?;
        }
    }
    Ok(())
}

/// Counts and hashes the bytes that are written through it.
struct Hashed<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
