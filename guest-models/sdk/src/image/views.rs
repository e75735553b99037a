//! Views of an image: the squares that a model receives, where one square of one frame is not the
//! whole image.
//!
//! Views of a still image lie along its longer side; those of an animation are spread over its
//! frames. Their number is limited, and the part that they leave out is reported.

use std::fmt;

use super::decode::{self, First, decode_file};
use super::frames::{self, Contents};
use super::picture::{BLANK_LEVELS, Picture};
use super::recipe::{Recipe, scaled_offset};
use crate::Fault;

/// Default maximum number of views of an image. Odd, so that the central square and the middle
/// frame are among them.
pub const DEFAULT_MAX_VIEWS: u32 = 5;

/// Minimum cost of a frame, in pixels.
const MIN_PIXELS: u64 = 4_096;

/// Largest frame of an animation whose later frames are decoded, as a divisor of the maximum pixels
/// of an image: a decoder holds its canvas several times.
const ANIMATION_SHARE: u32 = 6;

/// Takes the pixels of one view: red, green and blue, row by row.
pub type Judge<'a> = dyn FnMut(&[[u8; 3]]) -> Result<(), Fault> + 'a;

/// Takes the first frame of an image, and the number of its frames.
pub type Whole<'a> = dyn FnMut(&Picture, u32) -> Result<(), Fault> + 'a;

/// Shows images to a model by its recipe.
#[derive(Debug)]
pub struct Viewer<'r> {
    recipe: &'r Recipe,
    max_pixels: u32,
    max_views: u32,
    /// Pixels of later frames that may still be decoded, of all animations together: half of one
    /// image's maximum, so that animations cost no more than one more photo.
    frame_pixels: u64,
}

/// The part of an image that its views show.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Number of frames with views.
    pub frames: u32,
    /// Number of frames of the image: 1 if it is not an animation.
    pub of_frames: u32,
    /// Share of a frame's longer side that the views show, at most 1.
    pub share: f64,
    /// Number, from 1, of the first frame that cannot be decoded, if any.
    pub broken: Option<u32>,
    /// True if the file is damaged, so that the decoder shows at most a part of its picture.
    pub is_damaged: bool,
    /// True if the image is transparent and differs over black, but had no view over black.
    pub is_white_only: bool,
}

impl<'r> Viewer<'r> {
    /// Creates a viewer for images of at most `max_pixels` pixels, with `max_views` views each.
    pub fn new(recipe: &'r Recipe, max_pixels: u32, max_views: u32) -> Viewer<'r> {
        Viewer { recipe, max_pixels, max_views: max_views.max(1), frame_pixels: u64::from(max_pixels / 2) }
    }

    /// Passes each view of `file` to `judge`, as pixels for [`Recipe::normalise`].
    ///
    /// The views of a still image lie evenly along its longer side, from one end to the other.
    /// Their number is the smallest odd one that shows all of it, so that the central square is
    /// among them. The central square alone is enough if it shows three quarters of the image. The
    /// views of an animation come from frames spread evenly from the first to the last. If it has
    /// fewer frames than the maximum of views, each frame gets its share of them.
    ///
    /// Transparent pixels are white. A view that differs over black is passed in that form as well,
    /// so a transparent image may have twice as many views. A viewer of one view per image leaves
    /// it out, and [`Seen`] reports that.
    ///
    /// A view of a single colour shows nothing that a model could judge: it is passed only if no
    /// other view shows anything.
    ///
    /// # Errors
    ///
    /// Those of [`super::decode`] and of `judge`. An animation that breaks off after its first
    /// frame, and a JPEG file of which a part can be decoded, are not errors: see [`Seen`].
    pub fn show(&mut self, file: &[u8], judge: &mut Judge<'_>) -> Result<Seen, Fault> {
        let (recipe, max_views) = (self.recipe, self.max_views);
        let select = |size, orientation| recipe.part(size, orientation, max_views);
        let first = decode_file(file, self.max_pixels, &select)?;
        self.show_first(file, first, judge)
    }

    /// As [`Viewer::show`], and passes the picture itself to `whole` first, with the number of
    /// frames of the image: the first frame, over white. All pixels of a JPEG file are decoded for
    /// it.
    ///
    /// # Errors
    ///
    /// Those of [`Viewer::show`] and of `whole`.
    pub fn show_with(
        &mut self,
        file: &[u8],
        judge: &mut Judge<'_>,
        whole: &mut Whole<'_>,
    ) -> Result<Seen, Fault> {
        let first = decode_file(file, self.max_pixels, &decode::whole)?;
        whole(&first.picture, first.contents.pictures.max(1))?;
        self.show_first(file, first, judge)
    }

    /// Passes each view of `file`, of which `first` is the first picture.
    fn show_first(&mut self, file: &[u8], first: First, judge: &mut Judge<'_>) -> Result<Seen, Fault> {
        let First { picture: first, size, scale, format, contents, is_damaged } = first;
        let frames = self.frames(&first, contents);
        let views = self.max_views / (1 + frames.len() as u32);
        let (mut offsets, share) = self.recipe.offsets(size, views.max(1));
        offsets.iter_mut().for_each(|offset| *offset = scaled_offset(*offset, scale));
        let orientation = first.orientation;
        let (mut blank, mut has_content) = (None, false);
        let mut pass = |view: Vec<[u8; 3]>| {
            if is_blank(&view) {
                blank.get_or_insert(view);
                return Ok(());
            }
            has_content = true;
            judge(&view)
        };
        let (shows_black, mut is_white_only) = (self.max_views > 1, false);
        let mut show = |picture: Picture| {
            let mut over_white = Vec::new();
            for &offset in &offsets {
                let view = self.recipe.resize(&picture, offset)?;
                if picture.is_transparent() {
                    over_white.push(view.clone());
                }
                pass(view)?;
            }
            let Some(picture) = picture.over_black() else { return Ok(()) };
            for (&offset, other) in offsets.iter().zip(&over_white) {
                let view = self.recipe.resize(&picture, offset)?;
                if are_alike(&view, other) {
                    continue;
                }
                if shows_black {
                    pass(view)?;
                } else {
                    is_white_only = true;
                }
            }
            Ok(())
        };
        show(first)?;
        let broken = frames::later(file, format, contents, orientation, &frames, &mut show)?;
        if let (false, Some(view)) = (has_content, blank) {
            judge(&view)?;
        }
        let read = frames.iter().filter(|&&index| broken.is_none_or(|broken| index < broken)).count();
        Ok(Seen {
            frames: 1 + read as u32,
            of_frames: contents.pictures.max(1),
            share,
            broken: broken.map(|index| index + 1),
            is_damaged,
            is_white_only,
        })
    }

    /// Indices of the later frames to show. Their pixels are charged to `self`.
    fn frames(&mut self, first: &Picture, Contents { pictures, .. }: Contents) -> Vec<u32> {
        let pixels = u64::from(first.width) * u64::from(first.height);
        if pixels > u64::from(self.max_pixels / ANIMATION_SHARE) {
            return Vec::new();
        }
        let cost = pixels.max(MIN_PIXELS);
        // The first frame is decoded again, since the others build on it.
        let reach = u64::from(pictures).min(self.frame_pixels / cost) as u32;
        let shown = reach.min(self.max_views);
        if shown < 2 {
            return Vec::new();
        }
        self.frame_pixels -= u64::from(reach) * cost;
        let index = |step: u32| u64::from(step) * u64::from(reach - 1) / u64::from(shown - 1);
        (1..shown).map(|step| index(step) as u32).collect()
    }
}

impl Seen {
    /// Returns true if the views show the whole image.
    pub fn is_whole(&self) -> bool {
        self.frames == self.of_frames && self.share >= 1.0 && !self.is_damaged && !self.is_white_only
    }
}

impl fmt::Display for Seen {
    /// Such as `5 of 60 frames, 41 % of each`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.share * 100.0) as u32;
        match (self.of_frames, percent) {
            (1, _) => write!(f, "{percent} % of its length")?,
            (of, 100..) => write!(f, "{} of {of} frames", self.frames)?,
            (of, _) => write!(f, "{} of {of} frames, {percent} % of each", self.frames)?,
        }
        if let Some(frame) = self.broken {
            write!(f, " (frame {frame} cannot be decoded)")?;
        }
        if self.is_damaged {
            f.write_str(" (the file is damaged, and shows a part of its picture at most)")?;
        }
        if self.is_white_only {
            f.write_str(" (over white, and not over black)")?;
        }
        Ok(())
    }
}

/// Returns true if a view shows a single colour, apart from artefacts of lossy formats.
fn is_blank(view: &[[u8; 3]]) -> bool {
    view.first().is_none_or(|first| are_alike(view, std::iter::repeat(first)))
}

/// Returns true if two views do not differ visibly.
fn are_alike<'v>(view: &[[u8; 3]], other: impl IntoIterator<Item = &'v [u8; 3]>) -> bool {
    view.iter()
        .flatten()
        .zip(other.into_iter().flatten())
        .all(|(level, of)| level.abs_diff(*of) <= BLANK_LEVELS)
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
