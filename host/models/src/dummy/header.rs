//! Header of a GGUF file, version 3: metadata, then each tensor's name, shape, type and offset.
//!
//! The layout follows docs/gguf.md in the ggml repository.

use anyhow::{Context as _, bail, ensure};

use super::blocks::BlockType;

/// Phi-3's metadata without tensors, including tokenizer and chat template: llama.cpp's
/// ggml-vocab-phi-3.gguf.
const VOCABULARY: &[u8] = include_bytes!("../../../../weights/phi3/vocab.gguf");

/// Alignment of the data section, and of each tensor in it.
const ALIGNMENT: usize = 32;

const UINT32: u32 = 4;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A tensor of the file.
pub(super) struct Tensor {
    pub(super) name: String,
    /// 1 for a vector.
    pub(super) rows: usize,
    /// A multiple of the type's block.
    pub(super) columns: usize,
    pub(super) ty: BlockType,
}

impl Tensor {
    /// Size of the data; for the shapes here a multiple of the alignment.
    pub(super) fn bytes(&self) -> usize {
        self.rows * self.columns / self.ty.elements() * self.ty.bytes()
    }
}

/// Returns the header, up to the data of the first tensor.
pub(super) fn write(tensors: &[Tensor], file_type: u32) -> anyhow::Result<Vec<u8>> {
    let replaced = ["general.name", "general.file_type"];
    let written: Vec<_> =
        entries(VOCABULARY)?.into_iter().filter(|entry| !replaced.contains(&entry.0)).collect();
    let mut out = Vec::with_capacity(VOCABULARY.len() + 100 * tensors.len());
    out.extend(b"GGUF");
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((written.len() as u64 + 4).to_le_bytes());
    for (_, bytes) in written {
        out.extend(bytes);
    }
    string(&mut out, "general.name");
    out.extend(STRING.to_le_bytes());
    string(&mut out, "DUMMY: Phi-3 Mini with random weights");
    string(&mut out, "general.file_type");
    out.extend(UINT32.to_le_bytes());
    out.extend(file_type.to_le_bytes());
    // From config.json of Phi-3-mini-4k-instruct; the vocabulary file lacks it.
    string(&mut out, "phi3.attention.sliding_window");
    out.extend(UINT32.to_le_bytes());
    out.extend(2_047_u32.to_le_bytes());
    string(&mut out, "infer.dummy");
    out.extend(BOOL.to_le_bytes());
    out.push(1);
    let mut offset = 0;
    for tensor in tensors {
        ensure!(tensor.columns % tensor.ty.elements() == 0, "`{}` has half a block in a row", tensor.name);
        ensure!(tensor.bytes() % ALIGNMENT == 0, "`{}` would leave the next tensor unaligned", tensor.name);
        string(&mut out, &tensor.name);
        // The innermost dimension comes first.
        let dimensions = [tensor.columns, tensor.rows];
        let dimensions = if tensor.rows == 1 { &dimensions[..1] } else { &dimensions };
        out.extend((dimensions.len() as u32).to_le_bytes());
        for dimension in dimensions {
            out.extend((*dimension as u64).to_le_bytes());
        }
        out.extend(tensor.ty.number().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes();
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Returns the metadata entries of a GGUF file: the key, and the bytes of key, type and value.
fn entries(file: &[u8]) -> anyhow::Result<Vec<(&str, &[u8])>> {
    let mut rest = Rest(file);
    ensure!(rest.take(4)? == b"GGUF" && rest.u32()? == 3, "not a GGUF file of version 3");
    rest.u64()?;
    let count = rest.u64()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let begin = rest.0;
        let key = std::str::from_utf8(rest.string()?)?;
        let ty = rest.u32()?;
        rest.skip(ty).with_context(|| format!("`{key}`"))?;
        entries.push((key, &begin[..begin.len() - rest.0.len()]));
    }
    Ok(entries)
}

/// The bytes that have not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> anyhow::Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(bytes).context("the file ends early")?;
        self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> anyhow::Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    fn string(&mut self) -> anyhow::Result<&'a [u8]> {
        let bytes = self.u64()?.try_into()?;
        self.take(bytes)
    }

    fn skip(&mut self, ty: u32) -> anyhow::Result<()> {
        match (ty, fixed(ty)) {
            (_, Some(bytes)) => drop(self.take(bytes)?),
            (STRING, _) => drop(self.string()?),
            (ARRAY, _) => {
                let (ty, count) = (self.u32()?, self.u64()?);
                match fixed(ty) {
                    Some(bytes) => {
                        let bytes =
                            usize::try_from(count)?.checked_mul(bytes).context("an array too long")?;
                        self.take(bytes)?;
                    }
                    None if ty == STRING => {
                        for _ in 0..count {
                            self.string()?;
                        }
                    }
                    None => bail!("arrays of type {ty} are not expected"),
                }
            }
            _ => bail!("type {ty} is not known"),
        }
        Ok(())
    }
}

/// Bytes of a value of fixed size; `None` for a string or an array.
fn fixed(ty: u32) -> Option<usize> {
    match ty {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        UINT32 | 5 | 6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
