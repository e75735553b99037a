//! The views of an image: what of it a model is shown, where one square of one frame is not the
//! whole.
//!
//! A model sees squares. Of a still image they lie along its longer side; of an animation they are
//! spread over its frames. Their number is bounded, and what they leave out is reported.

use std::fmt;

use super::decode::decode_file;
use super::frames::{self, Contents};
use super::picture::Picture;
use super::recipe::Recipe;
use crate::Fault;

/// The most views of an image unless a setting says otherwise. Odd, so that the central square and
/// the frame in the middle are among them.
pub const DEFAULT_MAX_VIEWS: u32 = 5;

/// A frame costs as much as at least so many pixels.
const MIN_PIXELS: u64 = 4_096;

/// The largest frame of an animation whose later frames are decoded, as a share of the most pixels
/// of an image: a decoder holds its canvas several times.
const ANIMATION_SHARE: u32 = 6;

/// Levels, of 255, by which the pixels of a blank view may differ from its first.
const BLANK_LEVELS: u8 = 2;

/// Shows images to a model by its recipe.
#[derive(Debug)]
pub struct Viewer<'r> {
    recipe: &'r Recipe,
    max_pixels: u32,
    max_views: u32,
    /// Pixels of later frames that may still be decoded, of all animations together: half as many
    /// as one image may have, so that animations cost no more than one photo more.
    frame_pixels: u64,
}

/// Which part of an image its views show.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Frames of which there are views.
    pub frames: u32,
    /// Frames of the image: 1 where it is no animation.
    pub of_frames: u32,
    /// The share of a frame's longer side that the views show, at most 1.
    pub share: f64,
    /// The number, from 1, of the first frame that cannot be decoded, where there is one.
    pub broken: Option<u32>,
}

impl<'r> Viewer<'r> {
    /// A viewer of images of at most `max_pixels` pixels, `max_views` views each.
    pub fn new(recipe: &'r Recipe, max_pixels: u32, max_views: u32) -> Viewer<'r> {
        Viewer { recipe, max_pixels, max_views: max_views.max(1), frame_pixels: u64::from(max_pixels / 2) }
    }

    /// Give each view of `file` to `judge`, as pixels for [`Recipe::normalise`].
    ///
    /// Of a still image the views lie evenly along the longer side, from one end to the other: as
    /// many as it takes to show all of it, and one more where that makes their number odd, so that
    /// the central square is among them. The central square alone is enough of an image of which it
    /// shows three quarters. Of an animation they are of frames that are spread evenly from the
    /// first to the last; where it has fewer frames than there may be views, each frame gets its
    /// share of them.
    ///
    /// A view of a single colour shows nothing that a model could judge: it is given only where no
    /// other view shows anything.
    ///
    /// # Errors
    ///
    /// Those of [`super::decode`] and of `judge`. An animation that breaks off after its first
    /// frame is no error: see [`Seen`].
    pub fn show(
        &mut self,
        file: &[u8],
        judge: &mut dyn FnMut(&[[u8; 3]]) -> Result<(), Fault>,
    ) -> Result<Seen, Fault> {
        let (first, format, contents) = decode_file(file, self.max_pixels)?;
        let wanted = self.frames(&first, contents);
        let views = self.max_views / (1 + wanted.len() as u32);
        let (offsets, share) = self.recipe.offsets(first.size(), views.max(1));
        let orientation = first.orientation;
        let (mut blank, mut has_content) = (None, false);
        let mut show = |picture: &Picture| {
            offsets.iter().try_for_each(|&offset| {
                let view = self.recipe.resize(picture, offset)?;
                if is_blank(&view) {
                    blank.get_or_insert(view);
                    return Ok(());
                }
                has_content = true;
                judge(&view)
            })
        };
        show(&first)?;
        drop(first);
        let broken = frames::later(file, format, contents, orientation, &wanted, &mut show)?;
        if let (false, Some(view)) = (has_content, blank) {
            judge(&view)?;
        }
        let read = wanted.iter().filter(|&&index| broken.is_none_or(|broken| index < broken)).count();
        Ok(Seen {
            frames: 1 + read as u32,
            of_frames: contents.pictures.max(1),
            share,
            broken: broken.map(|index| index + 1),
        })
    }

    /// The indices of the later frames to show, and their pixels taken from what may be decoded.
    fn frames(&mut self, first: &Picture, Contents { pictures, .. }: Contents) -> Vec<u32> {
        let pixels = u64::from(first.width) * u64::from(first.height);
        if pixels > u64::from(self.max_pixels / ANIMATION_SHARE) {
            return Vec::new();
        }
        let cost = pixels.max(MIN_PIXELS);
        // The first is decoded again, for the others to build on.
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
    /// Whether nothing of the image is left out.
    pub fn is_whole(&self) -> bool {
        self.frames == self.of_frames && self.share >= 1.0
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
        match self.broken {
            Some(frame) => write!(f, " (frame {frame} cannot be decoded)"),
            None => Ok(()),
        }
    }
}

/// Whether a view shows a single colour, but for what lossy formats make of one.
fn is_blank(view: &[[u8; 3]]) -> bool {
    let Some((first, rest)) = view.split_first() else { return true };
    rest.iter().flatten().zip(first.iter().cycle()).all(|(level, of)| level.abs_diff(*of) <= BLANK_LEVELS)
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
