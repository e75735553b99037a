//! A guest that names the content of an image.
//!
//! It needs one model named `image`: any image classifier with one image input and one output of
//! shape `(N, classes)`. The model's card defines the conversion of pixels and the names of the
//! classes.
//!
//! The labels describe the square that the card's recipe takes from the middle of the first frame.
//! If that is not the whole image, a note reports which part it is.
//!
//! Settings: `max_pixels`, the maximum number of pixels of a decoded image (default 16,000,000).

mod classifier;
mod rank;

pub use rank::top;

use classifier::Classify;

guest_sdk::export_classifier!(Classify);
