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

/// True if a file of this size is not damaged, at each scale.
fn is_whole(file: &[u8], size: (u32, u32)) -> bool {
    let is_whole = |scale: u32| {
        let Ok(jpeg) = Jpeg::open(file) else { return false };
        if jpeg.size() != size {
            return false;
        }
        let (width, height) = jpeg.scaled(scale);
        let window = Region { left: 0, top: 0, width, height };
        jpeg.decode(scale, window, 1 << 27).is_ok_and(|(_, is_damaged)| !is_damaged)
    };
    let all = [1, 2, 4, 8].map(is_whole);
    assert!(all.iter().all(|&each| each == all[0]), "{all:?}");
    all[0]
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
        for _ in 0..1_000 {
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

/// Pixels as red, green and blue, row by row.
fn rgb(pixels: &Pixels) -> Vec<u8> {
    match pixels {
        Pixels::Grey(pixels) => pixels.iter().flat_map(|&level| [level; 3]).collect(),
        Pixels::RgbPadded(pixels) => pixels.chunks(4).flat_map(|pixel| pixel[..3].to_vec()).collect(),
        Pixels::Rgb(pixels) => pixels.clone(),
        other => panic!("{other:?}"),
    }
}

/// A file of `testdata/jpegs.bin`, its size, and its pixels at the scales 8, 4, 2 and 1.
struct Golden<'f> {
    file: &'f [u8],
    size: (u32, u32),
    pixels: [(u32, &'f [u8]); 4],
}

fn goldens() -> Vec<Golden<'static>> {
    let (mut rest, mut goldens) = (&include_bytes!("../../testdata/jpegs.bin")[..], Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (file, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        let jpeg = Jpeg::open(file).unwrap();
        rest = behind;
        let pixels = [8, 4, 2, 1].map(|scale| {
            let (width, height) = jpeg.scaled(scale);
            let (pixels, behind) = rest.split_at((3 * width * height) as usize);
            rest = behind;
            (scale, pixels)
        });
        goldens.push(Golden { file, size: jpeg.size(), pixels });
    }
    goldens
}

fn decoded(file: &[u8], scale: u32, window: Region) -> Vec<u8> {
    let (pixels, is_damaged) = Jpeg::open(file).unwrap().decode(scale, window, 1 << 27).unwrap();
    assert!(!is_damaged);
    rgb(&pixels)
}

#[test]
fn pixels_equal_libjpeg() {
    let goldens = goldens();
    assert_eq!(goldens.len(), 20);
    for (number, golden) in goldens.iter().enumerate() {
        let (width, height) = golden.size;
        for (scale, expected) in golden.pixels {
            let (width, height) = ((width * scale).div_ceil(8), (height * scale).div_ceil(8));
            let found = decoded(golden.file, scale, Region { left: 0, top: 0, width, height });
            let apart: Vec<_> = found.iter().zip(expected).map(|(one, other)| one.abs_diff(*other)).collect();
            let worst = apart.iter().max().unwrap();
            let mean = apart.iter().map(|&apart| f64::from(apart)).sum::<f64>() / apart.len() as f64;
            // libjpeg's small transforms read some of the coefficients that these leave out.
            let bounds = match scale {
                8 => (0, 0.0),
                _ if width * height < 8 => (6, 3.5),
                _ => (30, 2.1),
            };
            assert!(*worst <= bounds.0 && mean <= bounds.1, "{number}, scale {scale}: {worst}, {mean}");
        }
    }
}

#[test]
fn windows_equal_the_whole() {
    for (number, golden) in goldens().iter().enumerate() {
        for (scale, _) in golden.pixels {
            let (width, height) = Jpeg::open(golden.file).unwrap().scaled(scale);
            let all = decoded(golden.file, scale, Region { left: 0, top: 0, width, height });
            for (left, top) in [(0, 0), (width / 3, height / 2), (width - 1, height - 1), (width / 2, 0)] {
                let (wide, high) = ((width - left).div_ceil(2), (height - top).div_ceil(3));
                let window = Region { left, top, width: wide, height: high };
                let expected: Vec<u8> = (top..top + high)
                    .flat_map(|y| &all[(3 * (y * width + left)) as usize..][..3 * wide as usize])
                    .copied()
                    .collect();
                assert_eq!(decoded(golden.file, scale, window), expected, "{number}, {scale}, {window:?}");
            }
        }
    }
}
