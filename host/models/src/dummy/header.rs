//! Header of a GGUF file, version 3: metadata, then each tensor's name, shape, type and offset.
//!
//! The layout follows docs/gguf.md in the ggml repository.

use anyhow::{Context as _, bail, ensure};

use super::sizes::{Scalar, Sizes, Tensor};
use super::vocabulary::{TEMPLATE, Vocabulary, vocabulary};

/// Phi-3's metadata without tensors, including tokenizer and chat template: llama.cpp's
/// ggml-vocab-phi-3.gguf.
const VOCABULARY: &[u8] = include_bytes!("../../../../weights/phi3/vocab.gguf");

/// Alignment of the data section, and of each tensor in it.
const ALIGNMENT: usize = 32;

const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Returns the header, up to the data of the first tensor.
pub(super) fn write(sizes: &Sizes, tensors: &[Tensor], file_type: u32) -> anyhow::Result<Vec<u8>> {
    let mut metadata = Metadata::default();
    if sizes.real_vocabulary {
        metadata.phi3()?;
    } else {
        metadata.made_up(sizes);
    }
    metadata.text("general.name", &format!("DUMMY: {} with random weights", sizes.title));
    metadata.number("general.file_type", Scalar::U32(file_type));
    for (name, value) in sizes.keys {
        metadata.number(&format!("{}.{name}", sizes.architecture), *value);
    }
    metadata.bool("infer.dummy", true);
    let mut out = Vec::with_capacity(metadata.bytes.len() + 100 * tensors.len());
    out.extend(b"GGUF");
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(metadata.entries.to_le_bytes());
    out.extend(metadata.bytes);
    let mut offset = 0;
    for tensor in tensors {
        ensure!(
            tensor.columns % tensor.ty.block_elements() == 0,
            "`{}` has half a block in a row",
            tensor.name
        );
        ensure!(tensor.bytes() % ALIGNMENT == 0, "`{}` would leave the next tensor unaligned", tensor.name);
        string(&mut out, &tensor.name);
        // The innermost dimension comes first.
        let dimensions = [tensor.columns, tensor.rows];
        let dimensions = if tensor.rows == 1 { &dimensions[..1] } else { &dimensions };
        out.extend((dimensions.len() as u32).to_le_bytes());
        for dimension in dimensions {
            out.extend((*dimension as u64).to_le_bytes());
        }
        out.extend(tensor.ty.to_ggml().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes();
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

/// The metadata of a file under construction.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    entries: u64,
}

impl Metadata {
    /// Phi-3's hyper-parameters, vocabulary and chat template.
    fn phi3(&mut self) -> anyhow::Result<()> {
        let replaced = ["general.name", "general.file_type"];
        for (_, bytes) in entries(VOCABULARY)?.into_iter().filter(|entry| !replaced.contains(&entry.0)) {
            self.bytes.extend(bytes);
            self.entries += 1;
        }
        Ok(())
    }

    /// Hyper-parameters of `sizes`, and a made-up vocabulary with a chat template.
    fn made_up(&mut self, sizes: &Sizes) {
        self.text("general.architecture", sizes.architecture);
        for (name, value) in [
            ("block_count", sizes.layers),
            ("embedding_length", sizes.embedding),
            ("feed_forward_length", sizes.feed_forward),
            ("attention.head_count", sizes.heads),
            ("attention.head_count_kv", sizes.kv_heads),
            ("attention.key_length", sizes.head),
            ("attention.value_length", sizes.head),
            ("vocab_size", sizes.vocabulary),
        ] {
            self.number(&format!("{}.{name}", sizes.architecture), Scalar::U32(value as u32));
        }
        let Vocabulary { tokens, kinds, merges, end } = vocabulary(sizes.vocabulary);
        self.text("tokenizer.ggml.model", "gpt2");
        self.text("tokenizer.ggml.pre", "qwen2");
        self.array("tokenizer.ggml.tokens", STRING, &tokens, |out, token| string(out, token));
        self.array("tokenizer.ggml.token_type", INT32, &kinds, |out, kind| out.extend(kind.to_le_bytes()));
        self.array("tokenizer.ggml.merges", STRING, &merges, |out, merge| string(out, merge));
        self.number("tokenizer.ggml.eos_token_id", Scalar::U32(end));
        self.bool("tokenizer.ggml.add_bos_token", false);
        self.text("tokenizer.chat_template", TEMPLATE);
    }

    fn key(&mut self, key: &str, ty: u32) {
        string(&mut self.bytes, key);
        self.bytes.extend(ty.to_le_bytes());
        self.entries += 1;
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, STRING);
        string(&mut self.bytes, value);
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, BOOL);
        self.bytes.push(value.into());
    }

    fn number(&mut self, key: &str, value: Scalar) {
        let (ty, bytes) = match value {
            Scalar::U32(value) => (UINT32, value.to_le_bytes()),
            Scalar::F32(value) => (FLOAT32, value.to_le_bytes()),
        };
        self.key(key, ty);
        self.bytes.extend(bytes);
    }

    fn array<T>(&mut self, key: &str, ty: u32, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        self.key(key, ARRAY);
        self.bytes.extend(ty.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| write(&mut self.bytes, value));
    }
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
        UINT32 | INT32 | FLOAT32 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
