//! Reader of the Protocol Buffers wire format, which iterates over the fields of a message without
//! copying.
//!
//! It follows <https://protobuf.dev/programming-guides/encoding/> but rejects messages on which
//! common parsers disagree. Otherwise it could miss content that a backend's parser sees.

use std::ops::Range;

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field<'b> {
    pub(super) number: u32,
    pub(super) value: Value<'b>,
    /// Range of the field in its message, including its tag.
    pub(super) range: Range<usize>,
}

/// Content of a field.
#[derive(Debug)]
pub(super) enum Value<'b> {
    Varint(u64),
    /// A number of four or eight bytes.
    Fixed,
    /// Text, bytes, a message or packed numbers.
    Bytes(&'b [u8]),
}

/// Iterates over the fields of `bytes`, up to the first error.
pub(super) fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { bytes, at: 0 }
}

pub(super) struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<Field<'b>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

impl<'b> Fields<'b> {
    fn field(&mut self) -> Result<Field<'b>, &'static str> {
        let start = self.at;
        // A tag has 32 bits; parsers disagree about longer ones.
        let tag = self.varint(5)?;
        let tag = u32::try_from(tag).map_err(|_| "a tag has more than 32 bits")?;
        let number = tag >> 3;
        if number == 0 {
            return Err("a field has the number 0");
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(10)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint(10)?;
                let length = usize::try_from(length).map_err(|_| "a length overflows")?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            3 | 4 => return Err("a field is a group, which ONNX does not use"),
            _ => return Err("a field has an unknown wire type"),
        };
        Ok(Field { number, value, range: start..self.at })
    }

    fn varint(&mut self, max_bytes: usize) -> Result<u64, &'static str> {
        let rest = &self.bytes[self.at..];
        let (value, length) = varint(rest, max_bytes)?;
        self.at += length;
        Ok(value)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], &'static str> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("a field extends beyond its message")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

/// Decodes the varint at the start of `bytes`, and returns it with its length.
fn varint(bytes: &[u8], max_bytes: usize) -> Result<(u64, usize), &'static str> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(max_bytes).enumerate() {
        // The tenth byte contributes one bit; like all parsers, this drops the rest.
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err("a varint is not terminated")
}

/// Iterates over the numbers of a packed field, up to the first error.
pub(super) fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, &'static str>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let read = varint(bytes, 10);
        bytes = read.map_or(&[], |(_, length)| &bytes[length..]);
        Some(read.map(|(number, _)| number))
    })
}

/// Encodes the tag and length of field `number` with `length` bytes of content.
#[must_use]
pub fn head(number: u32, length: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(15);
    put(&mut head, u64::from((number << 3) | 2));
    put(&mut head, length);
    head
}

/// Appends `number` as a varint.
pub fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let bytes =
            [0x08, 0xac, 0x02, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let read: Vec<_> = fields(&bytes).collect::<Result<_, _>>().unwrap();
        assert!(matches!(
            read[0],
            Field { number: 1, value: Value::Varint(300), range: Range { start: 0, end: 3 } }
        ));
        assert!(matches!(&read[1], Field { number: 2, value: Value::Bytes(b"hi"), .. }));
        assert!(matches!((&read[2].value, &read[3].value), (Value::Fixed, Value::Fixed)));
        assert_eq!(read.last().unwrap().range, 12..21);
        let numbers: Result<Vec<_>, _> = packed(&[0xac, 0x02, 0x05]).collect();
        assert_eq!(numbers.unwrap(), [300, 5]);
        assert_eq!(packed(&[5, 0x80]).map(|number| number.is_err()).collect::<Vec<_>>(), [false, true]);
        assert_eq!(head(2, 300), [0x12, 0xac, 0x02]);
    }

    #[test]
    fn malformed_fields_end_the_iteration() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x80], "not terminated"),
            (&[0x08], "not terminated"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "not terminated"),
            (&[0x88, 0x80, 0x80, 0x80, 0x80, 0x00, 1], "not terminated"),
            (&[0x88, 0x80, 0x80, 0x80, 0x70, 1], "more than 32 bits"),
            (&[0x12, 5, 1], "beyond its message"),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "beyond its message"),
            (&[0x0b, 0x0c], "group"),
            (&[0x02, 0x00], "number 0"),
        ];
        for (bytes, expected) in cases {
            let read: Vec<_> = fields(bytes).collect();
            let error = read.last().unwrap().as_ref().unwrap_err();
            assert!(error.contains(expected), "{bytes:?}: {error}");
        }
    }
}
