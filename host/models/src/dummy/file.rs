//! Writes a model with random weights.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use infer_engine::files::Folder;
use sha2::{Digest as _, Sha256};

use super::blocks::{Random, fill};
use super::header;
use super::mix::Mix;
use super::sizes::{Model, Tensor, tensors};
use crate::disk;

/// Warning before the answers of a model with random weights.
pub const WARNING: &str = "DUMMY: this model's weights are random, so its answers mean nothing";

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal. Equal seeds and mixes give equal files.
    pub sha256: String,
}

/// Writes a file of the sizes of `model` with random weights to `path`. The file appears there only
/// when it is complete.
///
/// # Errors
///
/// If the disk has too little space, or cannot be written.
pub fn write(path: &Path, model: Model, mix: Mix, seed: u64) -> anyhow::Result<Written> {
    let sizes = model.sizes();
    let tensors = tensors(sizes, mix);
    let header = header::write(sizes, &tensors, mix.file_type())?;
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

/// Writes the tensors' data. Each tensor has its own random sequence, independent of the others.
fn weights(tensors: &[Tensor], seed: u64, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let mut random = Random::new(seed, index as u64);
        let row = tensor.bytes() / tensor.rows;
        buffer.resize(row, 0);
        for _ in 0..tensor.rows {
            fill(tensor.ty, &mut random, &mut buffer);
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
