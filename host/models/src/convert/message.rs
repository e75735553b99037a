//! Writer of the Protocol Buffers wire format, for the fields that an ONNX file needs.

use infer_engine::protobuf::{head, put};

/// The bytes of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Adds a number.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        self.tag(field, 0);
        put(&mut self.0, value);
        self
    }

    /// Adds a number of 32 bits with a fraction.
    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds text, bytes or a message.
    pub(super) fn bytes(mut self, field: u32, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.0.extend(head(field, content.len() as u64));
        self.0.extend_from_slice(content);
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        put(&mut self.0, u64::from(field << 3 | wire_type));
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_tags_and_lengths() {
        let inner = Message::default().number(1, 300);
        let message = Message::default().bytes(2, "hi").bytes(3, &inner).float(4, 1.0).number(20, u64::MAX);
        let mut expected = vec![0x12, 2, b'h', b'i', 0x1a, 3, 0x08, 0xac, 0x02, 0x25, 0, 0, 0x80, 0x3f];
        expected.extend([0xa0, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(message.into_bytes(), expected);
        assert_eq!(head(5, 128), [0x2a, 0x80, 0x01]);
    }
}
