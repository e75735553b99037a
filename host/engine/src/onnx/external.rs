//! External data of ONNX files: tensors whose bytes are in other files. The bytes are copied into
//! the model in memory, only from files that the card lists, so that no backend opens a file
//! itself.
//!
//! Every message that can contain a tensor is visited: graphs, graphs in attributes, functions,
//! training steps and sparse tensors. Where parsers disagree about a message (such as one that
//! occurs in two parts, or an unknown enumeration value), the model is rejected. The result
//! contains no external data for any parser.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::protobuf::{Field, Value, fields, head, packed};
use crate::limits::{MAX_MESSAGE_DEPTH, MAX_MODEL_BYTES};
use crate::weights::DataFile;

/// `TensorProto.raw_data`
const RAW_DATA: u32 = 9;

/// Reason why a model is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The file is not a `ModelProto`.
    Malformed(String),
    /// The model refers to data that the card does not list, or that is invalid.
    Data(String),
}

/// Returns the model in `bytes` with the data of `files` inlined, or `bytes` itself if it has no
/// external data.
///
/// # Errors
///
/// When the file is not an ONNX model, or when the data of a tensor is not completely in a listed
/// file, or is referred to more than once.
pub(super) fn inline<'b>(bytes: &'b [u8], files: &'b [DataFile]) -> Result<Cow<'b, [u8]>, Rejection> {
    // Backends detect these formats by their first bytes, whatever the bytes mean as a message.
    let other = [("ONNX Runtime", bytes.get(4..8) == Some(b"ORTM")), ("rten", is_rten(bytes))];
    if let Some((format, _)) = other.into_iter().find(|(_, is_it)| *is_it) {
        return Err(Rejection::Malformed(format!("the file has the format of {format}, expected ONNX")));
    }
    let left = files.iter().map(|file| file.bytes.len() as u64).sum();
    let mut inliner = Inliner { files, left };
    let Some(model) = inliner.message(Kind::Model, bytes, 0)? else { return Ok(Cow::Borrowed(bytes)) };
    MAX_MODEL_BYTES.check("the model with its data", model.length).map_err(Rejection::Data)?;
    Ok(Cow::Owned(model.pieces.concat()))
}

/// Checks for rten's own formats, the first version and later ones.
fn is_rten(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RTEN") || bytes.get(4..8) == Some(b"RTEN")
}

/// Messages of onnx.proto that contain tensors or messages of their own kind, directly or
/// indirectly. The depth of both is limited, since backends parse them recursively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    Sparse,
    Tensor,
    ValueInfo,
    Type,
    /// The element of a sequence or optional type.
    Element,
    /// A map type.
    Map,
}

impl Kind {
    /// Kind of the message in field `number`, and true if the field is repeated; `None` for other
    /// fields.
    pub(super) fn child(self, number: u32) -> Option<(Kind, bool)> {
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
            (Kind::Graph, 11..=13) | (Kind::Function, 12) => (Kind::ValueInfo, true),
            (Kind::ValueInfo, 2) | (Kind::Element, 1) | (Kind::Map, 2) => (Kind::Type, true),
            (Kind::Attribute, 14 | 15) => (Kind::Type, true),
            (Kind::Type, 4 | 9) => (Kind::Element, true),
            (Kind::Type, 5) => (Kind::Map, true),
            _ => return None,
        })
    }
}

/// A modified message in pieces, so that gigabytes are copied only once, at the end.
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
    /// Bytes that tensors may still take. Each byte of the files counts once, so that a model with
    /// many tensors over the same bytes cannot grow beyond the size in the card.
    left: u64,
}

fn malformed(reason: &str) -> Rejection {
    Rejection::Malformed(format!("the file is not an ONNX model: {reason}"))
}

impl<'b> Inliner<'b> {
    /// Returns the message in `bytes` with the data of its tensors; `None` if it has no external
    /// data.
    fn message(&mut self, kind: Kind, bytes: &'b [u8], depth: usize) -> Result<Option<Rope<'b>>, Rejection> {
        if depth > MAX_MESSAGE_DEPTH {
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
                rope.push(head(number, changed.length as u64));
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

    fn tensor(&mut self, bytes: &'b [u8]) -> Result<Option<Rope<'b>>, Rejection> {
        let tensor = Tensor::read(bytes).map_err(malformed)?;
        if !tensor.is_external {
            return Ok(None);
        }
        let rejected = |reason: String| Rejection::Data(format!("tensor `{}`: {reason}", tensor.shown()));
        let data = self.data(&tensor).map_err(rejected)?;
        let mut rope = Rope::default();
        for field in fields(bytes) {
            let Field { number, range, .. } = field.map_err(malformed)?;
            if !matches!(number, EXTERNAL_DATA | DATA_LOCATION) {
                rope.push(&bytes[range]);
            }
        }
        rope.push(head(RAW_DATA, data.len() as u64));
        rope.push(data);
        Ok(Some(rope))
    }

    /// Returns the bytes of a tensor in the file that it refers to.
    fn data(&mut self, tensor: &Tensor<'_>) -> Result<&'b [u8], String> {
        if tensor.has_own_data {
            return Err("has both inline and external data".to_owned());
        }
        let entry = |key: &str| {
            let mut found = tensor.entries.iter().filter(|(known, _)| *known == key).map(|(_, value)| *value);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(format!("has two entries `{key}` of external data")),
                (found, None) => Ok(found),
            }
        };
        let number = |key: &str| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let found = entry(key)?;
            let read = found.map(|text| text.parse::<u64>().ok().filter(|_| digits(text)));
            match read {
                Some(None) => Err(format!("has external data whose `{key}` is not a number")),
                read => Ok(read.flatten()),
            }
        };
        if let Some((key, _)) =
            tensor.entries.iter().find(|(key, _)| !["location", "offset", "length", "checksum"].contains(key))
        {
            return Err(format!("has external data with the unknown key `{}`", short(key)));
        }
        let location = entry("location")?.ok_or("has external data without a `location`")?;
        let file = self.files.iter().find(|file| file.name == location).ok_or_else(|| {
            let known: Vec<_> = self.files.iter().map(|file| format!("`{}`", file.name)).collect();
            let known = if known.is_empty() { "no data files".to_owned() } else { known.join(", ") };
            format!(
                "reads external data from `{}`, which the card does not list; it lists {known}. Put the file \
                 beside the card and list it in `files` with role `data`",
                short(location)
            )
        })?;
        let expected = tensor.bytes().ok_or("has external data of unknown type or size")?;
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
            "and the preceding tensors read more bytes than the data files have; expected each byte to be read once"
                .to_owned()
        })?;
        Ok(data)
    }
}

/// Fields of `TensorProto`.
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;

/// The fields of a `TensorProto` that locate its data.
#[derive(Default)]
pub(super) struct Tensor<'b> {
    pub(super) name: &'b [u8],
    pub(super) data_type: u64,
    /// Number of elements; `None` if an axis is negative or the product overflows.
    pub(super) elements: Option<u64>,
    pub(super) axes: usize,
    pub(super) is_external: bool,
    /// The elements as bytes, if the tensor has them in this form.
    pub(super) raw: Option<&'b [u8]>,
    has_own_data: bool,
    /// Keys and values of external data.
    pub(super) entries: Vec<(&'b str, &'b str)>,
}

impl<'b> Tensor<'b> {
    pub(super) fn read(bytes: &'b [u8]) -> Result<Self, &'static str> {
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
                // This includes a number that some parsers drop or truncate, and one that a later 0
                // overrides.
                (DATA_LOCATION, Value::Varint(location)) => tensor.is_external |= location != 0,
                (EXTERNAL_DATA | DATA_LOCATION, _) => return Err("a tensor's external data is malformed"),
                (4 | 5 | 6 | 7 | RAW_DATA | 10 | 11, value) => {
                    tensor.has_own_data = true;
                    tensor.raw = match value {
                        Value::Bytes(raw) if field.number == RAW_DATA => Some(raw),
                        _ => tensor.raw,
                    };
                }
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn axis(&mut self, size: u64) {
        self.axes += 1;
        let size = i64::try_from(size).ok().map(i64::unsigned_abs);
        self.elements = self.elements.zip(size).and_then(|(elements, size)| elements.checked_mul(size));
    }

    /// Size of the data by type and shape.
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

/// Parses the key and the value of a `StringStringEntryProto`.
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

/// Shortens and escapes a text of the file for a message.
fn short(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}
