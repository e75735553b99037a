//! The wire format of Protocol Buffers, as far as walking a message takes it: fields one after the
//! other, nothing copied.
//!
//! It follows <https://protobuf.dev/programming-guides/encoding/> and is stricter than the parsers
//! behind it where those differ among themselves: a walk that reads another message than they do
//! would miss what they see.

use std::ops::Range;

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field<'b> {
    pub(super) number: u32,
    pub(super) value: Value<'b>,
    /// Where the field is in its message, its tag included.
    pub(super) range: Range<usize>,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Value<'b> {
    Varint(u64),
    /// Four or eight bytes of a number.
    Fixed,
    /// Text, bytes, a message or packed numbers.
    Bytes(&'b [u8]),
}

/// The fields of `bytes`, up to the first mistake.
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
        // A tag is 32 bits: parsers differ on what they make of a longer one.
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
            3 | 4 => return Err("a field is a group, which ONNX has none of"),
            _ => return Err("a field is of no known wire type"),
        };
        Ok(Field { number, value, range: start..self.at })
    }

    fn varint(&mut self, most_bytes: usize) -> Result<u64, &'static str> {
        let rest = &self.bytes[self.at..];
        let (value, length) = varint(rest, most_bytes)?;
        self.at += length;
        Ok(value)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], &'static str> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("a field ends behind its message")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

/// The number that `bytes` begin with, and how many of them it takes.
fn varint(bytes: &[u8], most_bytes: usize) -> Result<(u64, usize), &'static str> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(most_bytes).enumerate() {
        // The tenth byte has one bit of the 64 left, and the rest is dropped as by every parser.
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err("a number has no end")
}

/// The numbers of a packed field, up to the first mistake.
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

/// The head of field `number` with `length` bytes of content.
pub(super) fn head(number: u32, length: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(15);
    put(&mut head, u64::from((number << 3) | 2));
    put(&mut head, length as u64);
    head
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
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
    fn malformed_fields_end_the_walk() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x80], "no end"),
            (&[0x08], "no end"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "no end"),
            (&[0x88, 0x80, 0x80, 0x80, 0x80, 0x00, 1], "no end"),
            (&[0x88, 0x80, 0x80, 0x80, 0x70, 1], "more than 32 bits"),
            (&[0x12, 5, 1], "behind its message"),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "behind its message"),
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
