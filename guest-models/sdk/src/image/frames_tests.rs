//! Counts of pictures in files from Pillow, and in malformed files.

use super::*;

macro_rules! drawn {
    ($name:literal) => {
        &include_bytes!(concat!("../../../../tests/data/views/", $name))[..]
    };
}

fn counted(file: &[u8]) -> (u32, bool) {
    let Contents { pictures, has_cover, .. } = contents(file, image::guess_format(file).unwrap());
    (pictures, has_cover)
}

#[test]
fn pictures_are_counted_without_decoding() {
    for (file, expected) in [
        (drawn!("second-frame.gif"), (2, false)),
        (drawn!("second-frame.png"), (2, false)),
        (drawn!("second-frame.webp"), (2, false)),
        (drawn!("second-frame-lossy.webp"), (2, false)),
        (drawn!("disposed.gif"), (3, false)),
        (drawn!("cover.png"), (3, true)),
        (drawn!("sixty-frames.gif"), (60, false)),
        (drawn!("sixty-frames.png"), (60, false)),
        (drawn!("sixty-frames.webp"), (60, false)),
        (drawn!("wide.png"), (1, true)),
        (drawn!("tall-bottom.jpg"), (1, false)),
    ] {
        assert_eq!(counted(file), expected);
    }
}

#[test]
fn sizes_inside_webp_files_are_read() {
    let largest = |file| contents(file, ImageFormat::WebP).largest;
    assert_eq!(largest(drawn!("second-frame-lossy.webp")), 96 * 96);
    assert_eq!(largest(include_bytes!("../../../../tests/data/photos/chelsea.webp")), 451 * 300);
}

#[test]
fn cut_files_have_fewer_pictures() {
    for file in [drawn!("sixty-frames.gif"), drawn!("sixty-frames.png"), drawn!("sixty-frames.webp")] {
        let format = image::guess_format(file).unwrap();
        let counted = |length: usize| contents(&file[..length], format).pictures;
        assert!((0..file.len()).all(|length| counted(length) <= 60), "{format:?}");
        assert!((0..file.len()).any(|length| (2..60).contains(&counted(length))), "{format:?}");
        assert_eq!(counted(file.len() - 1), 60, "{format:?}");
    }
}

#[test]
fn any_bytes_are_counted() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    for file in [drawn!("second-frame.gif"), drawn!("cover.png"), drawn!("second-frame-lossy.webp")] {
        let format = image::guess_format(file).unwrap();
        for _ in 0..2_000 {
            let mut file = file.to_vec();
            for _ in 0..=next() % 8 {
                let at = (usize::from(next()) << 8 | usize::from(next())) % file.len();
                file[at] = next();
            }
            contents(&file, format);
        }
    }
}
