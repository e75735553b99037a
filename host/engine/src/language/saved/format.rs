//! The format of a file with the keys and values of a prefix, little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which includes the version of the format |
//! | 4, 4 | length of the header, CRC-32 of the blocks |
//! | up to 16 MiB | the header in JSON, see [`Header`] |
//! | the rest | the blocks in order, each with all layers; slots after the last token are zero |
//!
//! The name of the file is made of the model's hash and the SHA-256 of the header, so a file under
//! another name is not used. The checksum detects damage, not malice: anyone who can write to the
//! folder controls the model's answers, as with packed weights. The file cannot cause reads or
//! writes outside of it, because its length must be that of its tokens, and keys and values are
//! plain numbers.

use std::fs::File;
use std::io::{self, Read as _, Write};

use infer_kernels::{AttentionShape, BLOCK_TOKENS};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::language::kv::{KvPool, Sequence};
use crate::limits::MAX_SAVED_HEADER_BYTES;
use crate::weights::hex;

const MAGIC: &[u8; 16] = b"infer prefix 1\r\n";

/// Version of the layout of blocks, and of the numbers in them. It increases whenever the same
/// tokens give other bytes.
pub(super) const LAYOUT: u32 = 1;

const EXTENSION: &str = ".kv";

/// Digits of the model's hash in the name of a file.
const MODEL_DIGITS: usize = 16;

/// Everything besides tokens on which keys and values depend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// [`LAYOUT`] of the program that wrote the file.
    pub(super) layout: u32,
    /// SHA-256 of the GGUF file, or over the hashes of its parts.
    pub(super) model: String,
    pub(super) kv_type: String,
    /// Maximum tokens of a session: the rotations of some models depend on it.
    pub(super) context: usize,
    pub(super) layers: usize,
    pub(super) layer_bytes: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) origin: Origin,
    /// The component whose sessions may use the prefix.
    pub(super) component: String,
    pub(super) tokens: Vec<u32>,
}

impl Header {
    /// The header in JSON, and the name of its file.
    pub(super) fn encoded(&self) -> io::Result<(Vec<u8>, String)> {
        let text = serde_json::to_vec(self)?;
        let name = name(&self.origin.model, &text);
        Ok((text, name))
    }

    /// Number of its blocks.
    pub(super) fn blocks(&self) -> usize {
        self.tokens.len().div_ceil(BLOCK_TOKENS)
    }
}

fn name(model: &str, header: &[u8]) -> String {
    format!("{}{}{EXTENSION}", prefix(model), hex(&Sha256::digest(header)))
}

/// Beginning of the names of a model's files.
pub(super) fn prefix(model: &str) -> String {
    format!("{}-", model.get(..MODEL_DIGITS).unwrap_or_default())
}

/// True for a name that this program assigns. Other files in the folder are not touched.
pub(super) fn is_ours(name: &str) -> bool {
    let hexadecimal =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = name.strip_suffix(EXTENSION).and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(model, header)| hexadecimal(model, MODEL_DIGITS) && hexadecimal(header, 64))
}

/// True for the name of a file that was not completed.
pub(super) fn is_partial(name: &str) -> bool {
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
    stem.and_then(|stem| stem.rsplit_once('.')).is_some_and(|(name, _)| is_ours(name))
}

/// Size of the file with a header of `header` bytes.
pub(super) fn file_bytes(header: usize, blocks: usize, origin: &Origin) -> u64 {
    let block = (origin.layers as u64).saturating_mul(origin.layer_bytes as u64);
    ((MAGIC.len() + 8 + header) as u64).saturating_add(block.saturating_mul(blocks as u64))
}

/// Writes the file of `sequence`, whose tokens the header has.
pub(super) fn write(
    mut file: impl Write,
    header: &[u8],
    sequence: &Sequence,
    shape: &AttentionShape,
) -> io::Result<()> {
    let mut blocks: Vec<_> = sequence.blocks().collect();
    // The rest of the last block belongs to other tokens: the text of a user.
    let last = blocks.pop().map(|block| {
        let mut own = block.to_vec();
        let filled = sequence.len() - blocks.len() * BLOCK_TOKENS;
        own.chunks_exact_mut(shape.layer_bytes()).for_each(|layer| shape.clear(layer, filled));
        own
    });
    blocks.extend(last.as_deref());
    let mut checksum = crc32fast::Hasher::new();
    blocks.iter().for_each(|block| checksum.update(block));
    file.write_all(MAGIC)?;
    file.write_all(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
    file.write_all(&checksum.finalize().to_le_bytes())?;
    file.write_all(header)?;
    blocks.into_iter().try_for_each(|block| file.write_all(block))
}

/// Reads the header of the file `name`, and the checksum of its blocks, which follow.
///
/// # Errors
///
/// A predicate for the path.
pub(super) fn read_header(file: &mut File, name: &str) -> Result<(Header, u32), String> {
    let cannot_read = |error: io::Error| format!("cannot be read: {error}");
    let found = file.metadata().map_err(cannot_read)?.len();
    let mut start = [0; MAGIC.len() + 8];
    file.read_exact(&mut start).map_err(cannot_read)?;
    let (magic, numbers) = start.split_at(MAGIC.len());
    let (&[length, checksum], []) = numbers.as_chunks::<4>() else { return Err("is too short".to_owned()) };
    let [length, checksum] = [length, checksum].map(u32::from_le_bytes);
    if magic != MAGIC {
        return Err("is not a file of keys and values of this version".to_owned());
    }
    if u64::from(length) > found.min(MAX_SAVED_HEADER_BYTES) {
        return Err(format!("has a header of {length} bytes, but {found} bytes in all"));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(cannot_read)?;
    let header: Header = serde_json::from_slice(&text)
        .map_err(|error| format!("has a header that cannot be read: {error}"))?;
    if self::name(&header.origin.model, &text) != name {
        return Err("has another header than its name says".to_owned());
    }
    let expected = file_bytes(text.len(), header.blocks(), &header.origin);
    if header.tokens.is_empty() || found != expected {
        let tokens = header.tokens.len();
        return Err(format!("has {found} bytes, expected {expected} for {tokens} tokens"));
    }
    Ok((header, checksum))
}

/// Reads the blocks of `tokens`. Returns `None` if the pool does not have enough blocks.
///
/// # Errors
///
/// A predicate for the path.
pub(super) fn read_blocks(
    file: &mut File,
    tokens: &[u32],
    checksum: u32,
    pool: &KvPool,
) -> Result<Option<Sequence>, String> {
    let mut sequence = Sequence::default();
    if sequence.extend(pool, tokens).is_err() {
        return Ok(None);
    }
    let mut found = crc32fast::Hasher::new();
    for block in sequence.blocks_mut() {
        file.read_exact(block).map_err(|error| format!("cannot be read: {error}"))?;
        found.update(block);
    }
    match found.finalize() == checksum {
        true => Ok(Some(sequence)),
        false => Err("is damaged: its checksum differs".to_owned()),
    }
}
