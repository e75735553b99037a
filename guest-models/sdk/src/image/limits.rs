//! Limits on untrusted image files: pixels, and memory that decoders may take.

/// The most pixels of an image unless a setting says otherwise: a photo of 16 megapixels.
pub const DEFAULT_MAX_PIXELS: u32 = 16_000_000;

/// Memory that a decoder may take beside the pixels: tables, a palette, the coefficients of a
/// progressive JPEG.
pub(super) const DECODER_BYTES: u64 = 64 << 20;

/// Memory that a decoder of GIF files may take beside the pixels, for a first frame that does not
/// fill the canvas.
pub(super) const GIF_FRAME_BYTES: u64 = 16 << 20;

/// What comes before the pixels of a PNG, inflated: a colour profile, texts. Nothing of it is kept,
/// and it inflates a thousandfold.
pub(super) const METADATA_BYTES: u64 = 8 << 20;

/// Memory that decoding an animation may take: its canvas several times.
pub(super) const ANIMATION_BYTES: u64 = 64 << 20;
