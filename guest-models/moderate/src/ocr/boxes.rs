//! Boxes of text, from the probability of each pixel that it is text.

/// Minimum probability of a pixel of a text.
const PIXEL: f32 = 0.3;

/// Minimum mean probability of the pixels of a text.
const BOX: f64 = 0.5;

/// Share of its area over its perimeter by which a box grows: the model marks the core of a line.
const GROW: f64 = 1.6;

/// Minimum sides of a text, in pixels of the map.
const MIN_SIDE: usize = 3;

/// Maximum number of texts of a map. Sorting them takes time by the square of their number.
pub(super) const MAX_FOUND: usize = 1_000;

/// A rectangle, in pixels of the image; `right` and `bottom` are behind the last pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextBox {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) right: u32,
    pub(super) bottom: u32,
}

/// Map of probabilities, row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map<'v> {
    pub(super) values: &'v [f32],
    pub(super) width: usize,
}

/// Pixels that touch each other, also at their corners.
#[derive(Debug)]
struct Blob {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
    pixels: usize,
    sum: f64,
}

/// Returns the boxes of the texts in an image of `(width, height)`, at most [`MAX_FOUND`]: line by
/// line, and from the left in each line.
pub(super) fn find(map: Map<'_>, (width, height): (u32, u32)) -> Vec<Vec<TextBox>> {
    let rows = map.values.len() / map.width.max(1);
    let (by, down) = (f64::from(width) / map.width as f64, f64::from(height) / rows as f64);
    let scaled = |blob: Blob| {
        let (wide, high) = (blob.right - blob.left, blob.bottom - blob.top);
        if blob.sum / (blob.pixels as f64) < BOX || wide.min(high) < MIN_SIDE {
            return None;
        }
        let grow = (wide * high) as f64 * GROW / (2 * (wide + high)) as f64;
        let low = |at: usize, scale: f64| ((at as f64 - grow) * scale).floor().max(0.0) as u32;
        let high = |at: usize, scale: f64, end: u32| (((at as f64 + grow) * scale).ceil() as u32).min(end);
        Some(TextBox {
            left: low(blob.left, by),
            top: low(blob.top, down),
            right: high(blob.right, by, width),
            bottom: high(blob.bottom, down, height),
        })
    };
    ordered(blobs(map).filter_map(scaled).take(MAX_FOUND).collect())
}

/// Finds the connected pixels above [`PIXEL`], in the order of their first pixels.
fn blobs(Map { values, width }: Map<'_>) -> impl Iterator<Item = Blob> {
    let mut seen = vec![false; values.len()];
    let rows = values.len() / width.max(1);
    let mut stack = Vec::new();
    (0..values.len()).filter_map(move |first| {
        if seen[first] || values[first] <= PIXEL {
            return None;
        }
        let mut blob = Blob { left: width, top: rows, right: 0, bottom: 0, pixels: 0, sum: 0.0 };
        seen[first] = true;
        stack.push(first);
        while let Some(at) = stack.pop() {
            let (x, y) = (at % width, at / width);
            (blob.left, blob.right) = (blob.left.min(x), blob.right.max(x + 1));
            (blob.top, blob.bottom) = (blob.top.min(y), blob.bottom.max(y + 1));
            blob.pixels += 1;
            blob.sum += f64::from(values[at]);
            for y in y.saturating_sub(1)..(y + 2).min(rows) {
                for near in y * width + x.saturating_sub(1)..y * width + (x + 2).min(width) {
                    if !seen[near] && values[near] > PIXEL {
                        seen[near] = true;
                        stack.push(near);
                    }
                }
            }
        }
        Some(blob)
    })
}

/// Sorts boxes into lines: one belongs to a line if its centre is within the height of the line's
/// first box.
fn ordered(mut boxes: Vec<TextBox>) -> Vec<Vec<TextBox>> {
    boxes.sort_by_key(|found| (found.top, found.left));
    let mut lines: Vec<Vec<TextBox>> = Vec::new();
    for found in boxes {
        let centre = found.top + found.bottom;
        let holds = |line: &&mut Vec<TextBox>| {
            line.first().is_some_and(|first| (2 * first.top..2 * first.bottom).contains(&centre))
        };
        match lines.iter_mut().find(holds) {
            Some(line) => line.push(found),
            None => lines.push(vec![found]),
        }
    }
    lines.iter_mut().for_each(|line| line.sort_unstable());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of 32 by 16 with these rectangles: left, top, width, height, probability.
    fn map(rectangles: &[(usize, usize, usize, usize, f32)]) -> Vec<f32> {
        let mut values = vec![0.0; 32 * 16];
        for &(left, top, width, height, probability) in rectangles {
            for y in top..top + height {
                values[y * 32 + left..y * 32 + left + width].fill(probability);
            }
        }
        values
    }

    fn lines(rectangles: &[(usize, usize, usize, usize, f32)]) -> Vec<Vec<[u32; 4]>> {
        let values = map(rectangles);
        let found = find(Map { values: &values, width: 32 }, (64, 32));
        let sides = |found: &TextBox| [found.left, found.top, found.right, found.bottom];
        found.iter().map(|line| line.iter().map(sides).collect()).collect()
    }

    #[test]
    fn boxes_grow_and_are_scaled() {
        // Grows by 8 * 4 * 1.6 / 24 = 2.13 pixels of the map on each side; the image is twice as
        // large.
        assert_eq!(lines(&[(4, 4, 8, 4, 0.9)]), [[[3, 3, 29, 21]]]);
        assert_eq!(lines(&[(0, 0, 32, 16, 0.9)]), [[[0, 0, 64, 32]]]);
    }

    #[test]
    fn faint_and_thin_pixels_are_no_text() {
        for rectangle in [(4, 4, 8, 4, 0.29), (4, 4, 8, 4, 0.45), (4, 4, 8, 2, 0.9), (4, 4, 2, 8, 0.9)] {
            assert_eq!(lines(&[rectangle]), Vec::<Vec<[u32; 4]>>::new(), "{rectangle:?}");
        }
    }

    #[test]
    fn pixels_join_at_corners() {
        assert_eq!(lines(&[(2, 2, 4, 4, 0.9), (6, 6, 4, 4, 0.9)]).concat().len(), 1);
        assert_eq!(lines(&[(2, 2, 4, 4, 0.9), (7, 6, 4, 4, 0.9)]).concat().len(), 2);
    }

    #[test]
    fn boxes_are_in_reading_order() {
        let found = lines(&[(20, 2, 6, 3, 0.9), (2, 3, 6, 3, 0.9), (2, 11, 6, 3, 0.9)]);
        let lefts: Vec<Vec<u32>> =
            found.iter().map(|line| line.iter().map(|found| found[0]).collect()).collect();
        assert_eq!(lefts, [vec![0, 36], vec![0]]);
    }

    #[test]
    fn empty_map_has_no_text() {
        assert!(find(Map { values: &[], width: 0 }, (1, 1)).is_empty());
        assert!(find(Map { values: &[], width: 32 }, (1, 1)).is_empty());
    }
}
