//! External data of an ONNX file: tensors whose bytes lie in other files. They are put into the
//! model in memory, from the files that the card lists and no others, so that no backend ever looks
//! for one itself.
//!
//! Every message of a model that may hold a tensor is walked: graphs, those inside of attributes,
//! functions, training steps and sparse tensors. Where parsers differ on what a message says (a
//! message in two parts, a number of an unknown enumeration), it is refused. What is left has no
//! external data in it, whichever of them reads it.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::protobuf::{Field, Value, fields, head, packed};
use crate::weights::DataFile;

/// How deep messages may be nested: Protocol Buffers' own bound.
const MAX_DEPTH: usize = 100;

/// The most bytes of a model in memory: Protocol Buffers' own bound.
const MAX_BYTES: usize = i32::MAX as usize;

/// `TensorProto.raw_data`
const RAW_DATA: u32 = 9;

/// Why a model is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file is no `ModelProto`.
    Malformed(String),
    /// It reads data that the card does not list, or not as it is there.
    Data(String),
}

/// The model in `bytes` with the data of `files` inside; the same bytes where it has no external
/// data.
///
/// # Errors
///
/// When the file is no ONNX model, and for a tensor whose data is not in a listed file, whole and
/// once.
pub(super) fn inline<'b>(bytes: &'b [u8], files: &'b [DataFile]) -> Result<Cow<'b, [u8]>, Refusal> {
    // Other formats that backends tell by their first bytes, whatever those are as a message.
    let other = [("ONNX Runtime's own", bytes.get(4..8) == Some(b"ORTM")), ("rten's own", is_rten(bytes))];
    if let Some((format, _)) = other.into_iter().find(|(_, is_it)| *is_it) {
        return Err(Refusal::Malformed(format!("the file is of {format} format, expected ONNX's")));
    }
    let left = files.iter().map(|file| file.bytes.len() as u64).sum();
    let mut inliner = Inliner { files, left };
    let Some(model) = inliner.message(Kind::Model, bytes, 0)? else { return Ok(Cow::Borrowed(bytes)) };
    if model.length > MAX_BYTES {
        return Err(Refusal::Data(format!(
            "the model has {} bytes with its data, expected at most {MAX_BYTES}",
            model.length
        )));
    }
    Ok(Cow::Owned(model.pieces.concat()))
}

/// Whether these are rten's own files: of its first version, or a later one.
fn is_rten(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RTEN") || bytes.get(4..8) == Some(b"RTEN")
}

/// The messages of onnx.proto that hold tensors, or messages that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    Sparse,
    Tensor,
}

impl Kind {
    /// The message in field `number`, if it is one of these, and whether the field may occur
    /// several times.
    fn child(self, number: u32) -> Option<(Kind, bool)> {
        Some(match (self, number) {
            (Kind::Model, 7) => (Kind::Graph, false),
            (Kind::Model, 20) => (Kind::Training, true),
            (Kind::Model, 25) => (Kind::Function, true),
            (Kind::Graph, 1) | (Kind::Function, 7) => (Kind::Node, true),
            (Kind::Graph, 5) | (Kind::Attribute, 10) => (Kind::Tensor, true),
            (Kind::Graph, 15) | (Kind::Attribute, 23) => (Kind::Sparse, true),
            (Kind::Node, 5) | (Kind::Function, 11) => (Kind::Attribute, true),
            (Kind::Attribute, 5) | (Kind::Sparse, 1 | 2) => (Kind::Tensor, false),
            (Kind::Attribute, 6) | (Kind::Training, 1 | 2) => (Kind::Graph, false),
            (Kind::Attribute, 11) => (Kind::Graph, true),
            (Kind::Attribute, 22) => (Kind::Sparse, false),
            _ => return None,
        })
    }
}

/// A message that differs from the one in the file, in pieces: gigabytes are copied once, at the
/// end.
#[derive(Default)]
struct Rope<'b> {
    pieces: Vec<Cow<'b, [u8]>>,
    length: usize,
}

impl<'b> Rope<'b> {
    fn push(&mut self, piece: impl Into<Cow<'b, [u8]>>) {
        let piece = piece.into();
        self.length = self.length.saturating_add(piece.len());
        self.pieces.push(piece);
    }
}

struct Inliner<'b> {
    files: &'b [DataFile],
    /// Bytes that tensors may still take: each of the files' is taken once, so a model of many
    /// tensors over the same bytes grows to no more than the card says.
    left: u64,
}

fn malformed(reason: &str) -> Refusal {
    Refusal::Malformed(format!("the file is no ONNX model: {reason}"))
}

impl<'b> Inliner<'b> {
    /// The message in `bytes` with its tensors' data inside; none where nothing of it changes.
    fn message(&mut self, kind: Kind, bytes: &'b [u8], depth: usize) -> Result<Option<Rope<'b>>, Refusal> {
        if depth > MAX_DEPTH {
            return Err(malformed("messages are nested more than 100 deep"));
        }
        if kind == Kind::Tensor {
            return self.tensor(bytes);
        }
        let (mut rope, mut copied, mut seen) = (Rope::default(), 0, 0_u32);
        for field in fields(bytes) {
            let Field { number, value, range } = field.map_err(malformed)?;
            let Some((child, repeats)) = kind.child(number) else { continue };
            let Value::Bytes(content) = value else {
                return Err(malformed(&format!(
                    "field {number} of `{kind:?}` is a number, expected a message"
                )));
            };
            // Parsers merge the parts of a message that occurs twice.
            let bit = 1 << number;
            if !repeats && seen & bit != 0 {
                return Err(malformed(&format!("field {number} of `{kind:?}` occurs twice, expected once")));
            }
            seen |= bit;
            if let Some(changed) = self.message(child, content, depth + 1)? {
                rope.push(&bytes[copied..range.start]);
                rope.push(head(number, changed.length));
                rope.length = rope.length.saturating_add(changed.length);
                rope.pieces.extend(changed.pieces);
                copied = range.end;
            }
        }
        if rope.pieces.is_empty() {
            return Ok(None);
        }
        rope.push(&bytes[copied..]);
        Ok(Some(rope))
    }

    fn tensor(&mut self, bytes: &'b [u8]) -> Result<Option<Rope<'b>>, Refusal> {
        let tensor = Tensor::read(bytes).map_err(malformed)?;
        if !tensor.is_external {
            return Ok(None);
        }
        let refused = |reason: String| Refusal::Data(format!("tensor `{}`: {reason}", tensor.shown()));
        let data = self.data(&tensor).map_err(refused)?;
        let mut rope = Rope::default();
        for field in fields(bytes) {
            let Field { number, range, .. } = field.map_err(malformed)?;
            if !matches!(number, EXTERNAL_DATA | DATA_LOCATION) {
                rope.push(&bytes[range]);
            }
        }
        rope.push(head(RAW_DATA, data.len()));
        rope.push(data);
        Ok(Some(rope))
    }

    /// The bytes of a tensor in the file that it names.
    fn data(&mut self, tensor: &Tensor<'_>) -> Result<&'b [u8], String> {
        if tensor.has_own_data {
            return Err("has data of its own beside external data".to_owned());
        }
        let entry = |key: &str| {
            let mut found = tensor.entries.iter().filter(|(known, _)| *known == key).map(|(_, value)| *value);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(format!("gives the `{key}` of its external data twice")),
                (found, None) => Ok(found),
            }
        };
        let number = |key: &str| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let found = entry(key)?;
            let read = found.map(|text| text.parse::<u64>().ok().filter(|_| digits(text)));
            match read {
                Some(None) => Err(format!("has external data whose `{key}` is no number")),
                read => Ok(read.flatten()),
            }
        };
        if let Some((key, _)) =
            tensor.entries.iter().find(|(key, _)| !["location", "offset", "length", "checksum"].contains(key))
        {
            return Err(format!("has external data with the key `{}`, which is unknown", short(key)));
        }
        let location = entry("location")?.ok_or("has external data without a `location`")?;
        let file = self.files.iter().find(|file| file.name == location).ok_or_else(|| {
            let known: Vec<_> = self.files.iter().map(|file| format!("`{}`", file.name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!(
                "reads external data from `{}`, which the card does not list; it lists {known}. List the file, which lies \
                 beside the card, in `files` with role `data`",
                short(location)
            )
        })?;
        let expected = tensor.bytes().ok_or("has external data of a type or size that is unknown")?;
        if let Some(length) = number("length")?.filter(|length| *length != expected) {
            return Err(format!(
                "has {length} bytes of external data, expected {expected} by its type and shape"
            ));
        }
        let offset = number("offset")?.unwrap_or(0);
        let range = offset.checked_add(expected).and_then(|end| {
            let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(end).ok()?);
            file.bytes.get(start..end)
        });
        let data = range.ok_or_else(|| {
            let (name, has) = (&file.name, file.bytes.len());
            format!("reads {expected} bytes from {offset} of `{name}`, which has {has}")
        })?;
        self.left = self.left.checked_sub(expected).ok_or_else(|| {
            "and those before it read more bytes than the data files have: expected each to be read once"
                .to_owned()
        })?;
        Ok(data)
    }
}

/// Fields of `TensorProto`.
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;

/// What a `TensorProto` says of where its data is.
#[derive(Default)]
struct Tensor<'b> {
    name: &'b [u8],
    data_type: u64,
    /// None where the product of its axes overflows, or one is negative.
    elements: Option<u64>,
    is_external: bool,
    has_own_data: bool,
    entries: Vec<(&'b str, &'b str)>,
}

impl<'b> Tensor<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, &'static str> {
        let mut tensor = Tensor { elements: Some(1), ..Tensor::default() };
        for field in fields(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Varint(size)) => tensor.axis(size),
                (1, Value::Bytes(sizes)) => {
                    for size in packed(sizes) {
                        tensor.axis(size?);
                    }
                }
                (2, Value::Varint(data_type)) => tensor.data_type = data_type,
                (8, Value::Bytes(name)) => tensor.name = name,
                (EXTERNAL_DATA, Value::Bytes(entry)) => tensor.entries.push(string_entry(entry)?),
                // Also a number that parsers drop or cut, and one that a later 0 takes back.
                (DATA_LOCATION, Value::Varint(location)) => tensor.is_external |= location != 0,
                (EXTERNAL_DATA | DATA_LOCATION, _) => return Err("a tensor's external data is malformed"),
                (4 | 5 | 6 | 7 | 9 | 10 | 11, _) => tensor.has_own_data = true,
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn axis(&mut self, size: u64) {
        let size = i64::try_from(size).ok().map(i64::unsigned_abs);
        self.elements = self.elements.zip(size).and_then(|(elements, size)| elements.checked_mul(size));
    }

    /// The size of its data, by type and shape.
    fn bytes(&self) -> Option<u64> {
        let bits = match self.data_type {
            2 | 3 | 9 | 17..=20 | 24 => 8,
            4 | 5 | 10 | 16 => 16,
            1 | 6 | 12 => 32,
            7 | 11 | 13 | 14 => 64,
            15 => 128,
            21..=23 => 4,
            25 | 26 => 2,
            _ => return None,
        };
        Some(self.elements?.checked_mul(bits)?.div_ceil(8))
    }

    fn shown(&self) -> String {
        short(&String::from_utf8_lossy(self.name))
    }
}

/// The key and the value of a `StringStringEntryProto`.
fn string_entry(bytes: &[u8]) -> Result<(&str, &str), &'static str> {
    let (mut key, mut value) = ("", "");
    for field in fields(bytes) {
        let Field { number, value: found, .. } = field?;
        let (Value::Bytes(text), 1 | 2) = (found, number) else {
            return Err("a tensor's external data is malformed");
        };
        let text = std::str::from_utf8(text).map_err(|_| "a tensor's external data is not in UTF-8")?;
        *(if number == 1 { &mut key } else { &mut value }) = text;
    }
    Ok((key, value))
}

/// A file's text for a message.
fn short(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}
