//! Intact files, and damage in every part of a file.

use super::*;

const BASELINE: &[u8] = include_bytes!("../../testdata/restarts.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("../../testdata/restarts-progressive.jpg");
/// Size of both pictures.
const SIZE: (u32, u32) = (64, 48);

macro_rules! photo {
    ($name:literal) => {
        &include_bytes!(concat!("../../../../tests/data/photos/", $name))[..]
    };
}

/// Offset of the codes of the first scan.
fn codes(file: &[u8]) -> usize {
    let at = file.windows(2).position(|bytes| bytes == [0xff, 0xda]).unwrap() + 2;
    at + usize::from(u16::from_be_bytes([file[at], file[at + 1]]))
}

/// Offsets of the restart markers.
fn restarts(file: &[u8]) -> Vec<usize> {
    let is_restart = |at: &usize| file[*at] == 0xff && (0xd0..=0xd7).contains(&file[at + 1]);
    (codes(file)..file.len() - 1).filter(is_restart).collect()
}

/// Returns `file` with the bytes `from..to` replaced by `new`.
fn replaced(file: &[u8], from: usize, to: usize, new: &[u8]) -> Vec<u8> {
    [&file[..from], new, &file[to..]].concat()
}

#[test]
fn good_files_are_whole() {
    for (file, size) in [
        (BASELINE, SIZE),
        (PROGRESSIVE, SIZE),
        (photo!("astronaut-progressive.jpg"), (347, 511)),
        (photo!("camera-grey.jpg"), (512, 512)),
        (photo!("coffee.jpg"), (600, 400)),
    ] {
        assert!(is_whole(file, size), "{size:?}");
        assert!(!is_whole(file, (size.0 + 1, size.1)), "another size than the decoder's");
        assert!(is_whole(&[file, b"a trailer", file].concat(), size), "{size:?} with a trailer");
        let end = file.len() - 2;
        assert!(is_whole(&replaced(file, end, end, &[0; 50]), size), "{size:?} with padding");
        assert!(is_whole(&replaced(file, end, end, &[0xff; 5]), size), "{size:?} with fill bytes");
        assert!(is_whole(&replaced(file, 2, 2, &[0xff; 9]), size), "{size:?} with fill bytes in front");
    }
    let mut filled = BASELINE.to_vec();
    restarts(BASELINE).iter().rev().for_each(|at| filled.insert(*at, 0xff));
    assert!(is_whole(&filled, SIZE));
}

#[test]
fn cut_files_are_damaged() {
    for file in [BASELINE, PROGRESSIVE] {
        let end = file.len() - 2;
        for length in 0..end - 1 {
            assert!(!is_whole(&file[..length], SIZE), "{length} bytes");
        }
        // With an end marker; a progressive file is cut within its first scan.
        for length in codes(file)..restarts(file)[3] {
            assert!(!is_whole(&replaced(file, length, end, &[]), SIZE), "{length} bytes and an end");
        }
    }
    // A sequential picture is complete without its end marker.
    assert!(is_whole(&BASELINE[..BASELINE.len() - 2], SIZE));
}

#[test]
fn damaged_segments_are_found() {
    for file in [BASELINE, PROGRESSIVE] {
        let (first, restarts) = (codes(file), restarts(file));
        let fill = [0xff; 40];
        let stuffed = [0xff, 0, 0xff, 0, 0xff, 0];
        for new in [&[][..], &[0], &fill, &stuffed] {
            assert!(!is_whole(&replaced(file, first, restarts[0], new), SIZE), "{new:?}");
            assert!(!is_whole(&replaced(file, restarts[2] + 2, restarts[3], new), SIZE), "{new:?}");
        }
        // A restart marker that is missing, or has a wrong number.
        assert!(!is_whole(&replaced(file, restarts[0], restarts[0] + 2, &[]), SIZE));
        assert!(!is_whole(&replaced(file, restarts[0] + 1, restarts[0] + 2, &[0xd5]), SIZE));
        // An end marker, or another picture, before the rest.
        for marker in [[0xff, 0xd9], [0xff, 0xd8], [0xff, 0xc0]] {
            assert!(!is_whole(&replaced(file, first, first, &marker), SIZE), "{marker:?}");
        }
    }
}

#[test]
fn mutated_files_do_not_panic() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    for file in [BASELINE, PROGRESSIVE] {
        for _ in 0..5_000 {
            let mut file = file.to_vec();
            for _ in 0..=next() % 4 {
                let at = (usize::from(next()) << 8 | usize::from(next())) % file.len();
                file[at] = next();
            }
            is_whole(&file, SIZE);
        }
    }
    // The number of scans is limited as in the decoder.
    let scan = PROGRESSIVE.windows(2).rposition(|bytes| bytes == [0xff, 0xda]).unwrap();
    let many = PROGRESSIVE[scan..PROGRESSIVE.len() - 2].repeat(10_000);
    let many = replaced(PROGRESSIVE, PROGRESSIVE.len() - 2, PROGRESSIVE.len() - 2, &many);
    assert!(!is_whole(&many, SIZE));
}
