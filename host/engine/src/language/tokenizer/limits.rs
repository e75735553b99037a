//! Limits of texts and chats.

/// Maximum bytes of one text, or of the contents of a chat together: about eight times as much as
/// the longest contexts hold.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Maximum turns of a chat.
pub(crate) const MAX_MESSAGES: usize = 1 << 10;
