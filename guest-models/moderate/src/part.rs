//! Parts of the input.

/// A text of the input, with its index among the parts.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) part: u32,
    pub(crate) text: String,
    /// True if it was read in an image.
    pub(crate) is_read: bool,
}

/// An image of the input, with its index among the parts.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) part: u32,
    pub(crate) file: Vec<u8>,
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
    }
}
