//! Rows of word ids for the model.

pub use crate::words::ids;

/// Cuts `ids` into windows of at most `size`, each half a window after the one before; the last
/// ends with the text.
///
/// The model reads one window, and Keras would pass only the last. An insult followed by a hundred
/// harmless words must not pass as harmless, so all windows are judged. `size` is at least 1; a
/// text without known words is one empty window.
pub fn windows(ids: &[i32], size: usize) -> Vec<&[i32]> {
    let Some(last) = ids.len().checked_sub(size) else { return vec![ids] };
    let step = size.div_ceil(2);
    let mut windows: Vec<_> = (0..last).step_by(step).map(|first| &ids[first..first + size]).collect();
    windows.push(&ids[last..]);
    windows
}

/// Appends `window` to `rows` as a row of `size` ids, padded with zeros in front.
pub fn pad(window: &[i32], size: usize, rows: &mut Vec<i32>) {
    rows.resize(rows.len() + size - window.len(), 0);
    rows.extend_from_slice(window);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_by_half() {
        // Length, first id of each window.
        let cases: [(usize, &[i32]); 7] = [
            (0, &[]),
            (3, &[0]),
            (10, &[0]),
            (11, &[0, 1]),
            (15, &[0, 5]),
            (16, &[0, 5, 6]),
            (31, &[0, 5, 10, 15, 20, 21]),
        ];
        for (length, expected) in cases {
            let ids: Vec<i32> = (0..length as i32).collect();
            let windows = windows(&ids, 10);
            let firsts: Vec<_> = windows.iter().filter_map(|window| window.first().copied()).collect();
            assert_eq!(firsts, expected, "{length} ids");
            assert_eq!(windows.last().unwrap().last(), ids.last());
        }
    }

    #[test]
    fn every_id_is_in_some_window() {
        for length in 0..60 {
            for size in 1..12 {
                let ids: Vec<i32> = (0..length).collect();
                let seen: std::collections::BTreeSet<_> = windows(&ids, size).concat().into_iter().collect();
                assert_eq!(seen.len(), ids.len(), "{length} ids in windows of {size}");
            }
        }
    }

    #[test]
    fn rows_are_padded_in_front() {
        let mut rows = Vec::new();
        pad(&[7, 8], 4, &mut rows);
        pad(&[], 4, &mut rows);
        assert_eq!(rows, [0, 0, 7, 8, 0, 0, 0, 0]);
    }
}
