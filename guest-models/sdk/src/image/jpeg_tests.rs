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

/// For each scale, true if a file of this size is not damaged.
fn are_whole(file: &[u8], size: (u32, u32)) -> [bool; 4] {
    [1, 2, 4, 8].map(|scale| {
        let Ok(jpeg) = Jpeg::open(file) else { return false };
        if jpeg.size() != size {
            return false;
        }
        let (width, height) = jpeg.scaled(scale);
        let window = Region { left: 0, top: 0, width, height };
        jpeg.decode(scale, window, 1 << 27).is_ok_and(|(_, is_damaged)| !is_damaged)
    })
}

/// True if a file of this size is not damaged, at each scale.
fn is_whole(file: &[u8], size: (u32, u32)) -> bool {
    let all = are_whole(file, size);
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
            are_whole(&file, SIZE);
        }
    }
    // The number of scans is limited as in the decoder.
    let scan = PROGRESSIVE.windows(2).rposition(|bytes| bytes == [0xff, 0xda]).unwrap();
    let many = PROGRESSIVE[scan..PROGRESSIVE.len() - 2].repeat(10_000);
    let many = replaced(PROGRESSIVE, PROGRESSIVE.len() - 2, PROGRESSIVE.len() - 2, &many);
    assert!(!is_whole(&many, SIZE));
}

/// A scan: its components, its band (first and last coefficient, bits), and its codes.
type Scan<'s> = (&'s [u8], [u8; 3], &'s str);

/// A file of 8 by 8 pixels whose `frame` has this marker, with quantisation by 1. The codes 00, 01
/// and 10 stand for DC differences of 0, 12 and 15 bits. The code 0 ends a block; 10, 110 and 1110
/// stand for coefficients of 1, 11 and 15 bits.
fn tiny(frame: u8, components: u8, scans: &[Scan<'_>]) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    file.extend([1; 64]);
    file.extend([0xff, frame, 0, 8 + 3 * components, 8, 0, 8, 0, 8, components]);
    (1..=components).for_each(|id| file.extend([id, 0x11, 0]));
    file.extend([0xff, 0xc4, 0, 22, 0x00, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 15]);
    file.extend([0xff, 0xc4, 0, 23, 0x10, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 11, 15]);
    for (ids, band, codes) in scans {
        file.extend([0xff, 0xda, 0, 6 + 2 * ids.len() as u8, ids.len() as u8]);
        ids.iter().for_each(|&id| file.extend([id, 0]));
        file.extend(band);
        for byte in codes.as_bytes().chunks(8) {
            let bit = |at: usize| byte.get(at).is_none_or(|&bit| bit == b'1');
            let byte = (0..8).fold(0, |byte, at| byte << 1 | u8::from(bit(at)));
            file.push(byte);
            file.extend((byte == 0xff).then_some(0));
        }
    }
    [&file, &[0xff, 0xd9][..]].concat()
}

const FIRST_PIXEL: Region = Region { left: 0, top: 0, width: 1, height: 1 };

/// Level of the first pixel at a scale, and true if the file is damaged.
fn first_pixel(file: &[u8], scale: u32) -> (u8, bool) {
    let (pixels, is_damaged) = Jpeg::open(file).unwrap().decode(scale, FIRST_PIXEL, 1 << 27).unwrap();
    (rgb(&pixels)[0], is_damaged)
}

/// Coefficients of a sequential scan.
const ALL: [u8; 3] = [0, 63, 0];

#[test]
fn last_scan_of_a_component_counts() {
    // A block of the mean 0, one of 2,048 / 8 levels above it, and one of as many below it.
    let (grey, white, black) = ("000", "011000000000000", "010111111111110");
    let planes: [Scan<'_>; 3] = [(&[1], ALL, grey), (&[2], ALL, grey), (&[3], ALL, grey)];
    assert_eq!(first_pixel(&tiny(0xc0, 3, &planes), 8), (128, false));
    for (again, level) in [(white, 255), (black, 0)] {
        let file = tiny(0xc0, 3, &[&planes[..], &[(&[1], ALL, again)]].concat());
        assert_eq!(first_pixel(&file, 8), (level, true), "{again}");
    }
    // Decoders stop after a scan of all components.
    let twice = [(&[1][..], ALL, grey), (&[1], ALL, white)];
    assert_eq!(first_pixel(&tiny(0xc0, 1, &twice), 8), (128, false));
    assert!(first_pixel(&tiny(0xc0, 3, &[(&[1, 1, 1], ALL, "000000000")]), 8).1);
}

#[test]
fn excessive_samples_are_damage() {
    // Eight times the difference to the middle: 510 * 8, 511.5 * 8, 2,048 * 8.
    for (dc, is_damaged) in [("01111111110000", false), ("01111111111100", true), ("10100000000000000", true)]
    {
        for scale in [8, 4, 2, 1] {
            let blocks = ["0", "1000"].map(|ac| [dc, ac].concat());
            for codes in blocks {
                let file = tiny(0xc0, 1, &[(&[1], ALL, &codes)]);
                assert_eq!(first_pixel(&file, scale), (255, is_damaged), "{codes}, scale {scale}");
            }
        }
    }
}

#[test]
fn excessive_coefficients_are_damage_where_unread() {
    // The first coefficients are 1, and one is large. Samples at the scale 1 are in range.
    for (position, scales) in [(3, &[2, 1][..]), (5, &[2, 1]), (10, &[4, 2, 1]), (63, &[4, 2, 1])] {
        for (value, is_excessive) in [(1_500, false), (1_537, true)] {
            let end = if position < 63 { "0" } else { "" };
            let ac = format!("{}110{value:011b}{end}", "101".repeat(position - 1));
            let sequential = tiny(0xc0, 1, &[(&[1], ALL, &["00", &ac].concat())]);
            let scans: [Scan<'_>; 2] = [(&[1], [0, 0, 0], "00"), (&[1], [1, 63, 0], &ac)];
            for file in [sequential, tiny(0xc2, 1, &scans)] {
                for scale in [8, 4, 2, 1] {
                    let expected = is_excessive && scales.contains(&scale);
                    assert_eq!(first_pixel(&file, scale).1, expected, "{position}, {value}, scale {scale}");
                }
            }
        }
    }
}

#[test]
fn scans_out_of_order_are_damage() {
    const DC: Scan<'_> = (&[1], [0, 0, 0], "00");
    let dc = |bits: u8, codes: &'static str| (&[1][..], [0, 0, bits], codes);
    let ac = |bits: u8, codes: &'static str| (&[1][..], [1, 63, bits], codes);
    for (scans, is_good) in [
        (&[DC][..], true),
        (&[dc(0x01, "00"), dc(0x10, "0")], true),
        (&[dc(0x0d, "00")], true),
        (&[dc(0x0e, "00")], false),
        (&[DC, DC], false),
        (&[DC, dc(0x10, "0")], false),
        (&[dc(0x02, "00"), dc(0x10, "0")], false),
        (&[dc(0x02, "00"), dc(0x20, "0")], false),
        (&[dc(0x10, "0"), DC], false),
        (&[ac(0, "0"), DC], true),
        (&[DC, ac(0, "0"), ac(0, "0")], false),
        (&[DC, ac(0x01, "0"), ac(0x10, "0")], true),
        (&[DC, ac(0x01, "0"), ac(0x10, "0"), ac(0x10, "0")], false),
        (&[DC, (&[1], [1, 5, 0], "0"), (&[1], [6, 63, 0], "0")], true),
        (&[DC, (&[1], [1, 5, 0], "0"), (&[1], [5, 63, 0], "0")], false),
    ] {
        let file = tiny(0xc2, 1, scans);
        // Without a valid scan there is no picture.
        let is_whole = Jpeg::open(&file).unwrap().decode(8, FIRST_PIXEL, 1 << 27).is_ok_and(|found| !found.1);
        assert_eq!(is_whole, is_good, "{scans:?}");
    }
}

#[test]
fn first_exif_segment_gives_the_orientation() {
    let exif = |orientation: u8| {
        let directory = [0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
        [b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08", &directory[..]].concat()
    };
    let file = tiny(0xc0, 1, &[(&[1], ALL, "000")]);
    let orientation =
        |segments: &[u8]| Jpeg::open(&replaced(&file, 2, 2, segments)).unwrap().orientation().to_exif();
    assert_eq!(orientation(&[]), 1);
    assert_eq!(orientation(&exif(6)), 6);
    assert_eq!(orientation(&[exif(6), exif(3)].concat()), 6);
    assert_eq!(orientation(&[b"\xff\xe1\0\x08Exif\0\0", &exif(3)[..]].concat()), 1);
}

#[test]
fn coefficient_too_large_for_its_bits_is_zero() {
    // 1,024 << 13 does not fit into 16 bits. Neither that nor its refinement, which is a single end
    // of the block, changes the picture.
    let scans =
        [(&[1][..], [0, 0, 0], "00"), (&[1], [1, 1, 0x0d], "11010000000000"), (&[1], [1, 1, 0xdc], "0")];
    assert_eq!(first_pixel(&tiny(0xc2, 1, &scans), 8), (128, false));
}

#[test]
fn segments_that_other_decoders_reject_are_damage() {
    let good = tiny(0xc2, 1, &[(&[1], [0, 0, 0], "00")]);
    let end = good.len() - 2;
    for (segment, is_good) in [
        (&[0xff, 0xfe, 0, 2][..], true),
        (&[0xff, 0xe5, 0, 2], true),
        (&[0xff, 0xdd, 0, 4, 0, 0], true),
        (&[0xff, 0xdd, 0, 5, 0, 0, 0], false),
        (&[0xff, 0xd8], false),
        (&[0xff, 0x02, 0, 2], false),
        (&[0xff, 0xcc, 0, 2], false),
        // A table of neither DC nor AC codes.
        (&[0xff, 0xc4, 0, 19, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
    ] {
        let file = replaced(&good, end, end, segment);
        assert_eq!(first_pixel(&file, 8), (128, !is_good), "{segment:?}");
    }
    // Headers of a frame and a scan with a byte more than they need.
    for marker in [0xc2, 0xda] {
        let at = good.windows(2).position(|bytes| bytes == [0xff, marker]).unwrap() + 3;
        let mut file = replaced(&good, at + usize::from(good[at]) - 1, at + usize::from(good[at]) - 1, &[0]);
        file[at] += 1;
        assert!(!is_whole(&file, (8, 8)), "{marker:x}");
    }
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
    assert_eq!(goldens.len(), 24);
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
