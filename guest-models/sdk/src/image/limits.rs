//! Limits for untrusted image files: pixels and memory.

/// Default maximum number of pixels of an image: a photo of 16 megapixels.
pub const DEFAULT_MAX_PIXELS: u32 = 16_000_000;

/// Memory that a decoder may take beside the pixels: tables, a palette, the coefficients of a
/// progressive JPEG.
pub(super) const DECODER_BYTES: u64 = 64 << 20;

/// Memory that a GIF decoder may take beside the pixels, for a first frame that does not fill the
/// canvas.
pub(super) const GIF_FRAME_BYTES: u64 = 16 << 20;

/// Maximum size of the inflated data before the pixels of a PNG, such as colour profiles and texts.
/// They are discarded, and may inflate a thousandfold.
pub(super) const METADATA_BYTES: u64 = 8 << 20;

/// Memory that decoding an animation may take: several times its canvas.
pub(super) const ANIMATION_BYTES: u64 = 64 << 20;
