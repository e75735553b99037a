//! Limits of texts and chats.

/// Bytes of one text, or of a chat's contents together, at most: some eight times what the longest
/// contexts hold.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Turns of a chat at most.
pub(crate) const MAX_MESSAGES: usize = 1 << 10;
