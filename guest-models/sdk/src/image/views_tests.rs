//! Views of animations and long images, and the cost of hostile files.

use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, ImageFormat, Rgba, RgbaImage};

use super::*;
use crate::image::limits::DEFAULT_MAX_PIXELS;
use crate::image::recipe::{Color, Layout};
use crate::image::region::Filter;

macro_rules! drawn {
    ($name:literal) => {
        &include_bytes!(concat!("../../../../tests/data/views/", $name))[..]
    };
}

fn recipe() -> Recipe {
    let (layout, color, filter) = (Layout::Nhwc, Color::Rgb, Filter::Bilinear);
    Recipe { width: 8, height: 8, layout, color, crop: 1.0, filter, mean: [0.0; 3], std: [1.0; 3] }
}

/// The middle of the red channel of each view of a file, and the part that they show.
fn show(file: &[u8], max_pixels: u32, max_views: u32) -> Result<(Vec<u8>, Seen), Fault> {
    let recipe = recipe();
    let mut reds = Vec::new();
    let seen = Viewer::new(&recipe, max_pixels, max_views).show(file, &mut |view| {
        assert_eq!(view.len(), 8 * 8);
        reds.push(view[8 * 4 + 4][0]);
        Ok(())
    })?;
    Ok((reds, seen))
}

/// A GIF of frames whose red is their number, with a blue stripe at the bottom.
fn gif(width: u32, height: u32, frames: u8) -> Vec<u8> {
    drawn_gif(width, height, frames, |red, y| [red, 0, if y >= height * 3 / 4 { 255 } else { 0 }])
}

/// A GIF whose pixels have the `color` of a frame's number and a line.
fn drawn_gif(width: u32, height: u32, frames: u8, color: impl Fn(u8, u32) -> [u8; 3]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut file, 30);
    for number in 0..frames {
        let image = RgbaImage::from_fn(width, height, |_, y| {
            let [red, green, blue] = color(number, y);
            Rgba([red, green, blue, 255])
        });
        encoder.encode_frame(Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(100, 1))).unwrap();
    }
    drop(encoder);
    file
}

#[test]
fn frames_are_spread_from_first_to_last() {
    for (frames, max, expected) in [
        (1, 5, &[0][..]),
        (2, 5, &[0, 1]),
        (5, 5, &[0, 1, 2, 3, 4]),
        (6, 5, &[0, 1, 2, 3, 5]),
        (60, 5, &[0, 14, 29, 44, 59]),
        (60, 2, &[0, 59]),
        (60, 1, &[0]),
        (60, 0, &[0]),
    ] {
        let (reds, seen) = show(&gif(10, 10, frames), DEFAULT_MAX_PIXELS, max).unwrap();
        assert_eq!(reds, expected, "{frames} frames, {max} views");
        assert_eq!((seen.frames as usize, seen.of_frames), (expected.len(), frames.into()));
        assert_eq!(seen.is_whole(), expected.len() == usize::from(frames));
    }
}

#[test]
fn long_frames_share_the_views() {
    let shown = |frames, max| {
        let (reds, seen) = show(&gif(20, 10, frames), DEFAULT_MAX_PIXELS, max).unwrap();
        (reds, seen.to_string())
    };
    assert_eq!(shown(1, 5), (vec![0, 0, 0], "100 % of its length".to_owned()));
    assert_eq!(shown(2, 5), (vec![0, 0, 1, 1], "2 of 2 frames".to_owned()));
    assert_eq!(shown(3, 5), (vec![0, 1, 2], "3 of 3 frames, 50 % of each".to_owned()));
    assert_eq!(shown(9, 3), (vec![0, 4, 8], "3 of 9 frames, 50 % of each".to_owned()));
    assert_eq!(shown(1, 1), (vec![0], "50 % of its length".to_owned()));
}

#[test]
fn blank_views_are_left_out_beside_others() {
    // Frames of one colour, except those in `drawn`.
    let reds = |frames, drawn: &[u8]| {
        let color = |number, y| [number, 0, if drawn.contains(&number) && y > 7 { 255 } else { 0 }];
        let (reds, seen) = show(&drawn_gif(10, 10, frames, color), DEFAULT_MAX_PIXELS, 5).unwrap();
        assert!(seen.is_whole(), "{seen:?}");
        reds
    };
    assert_eq!(reds(2, &[1]), [1]);
    assert_eq!(reds(4, &[0, 2]), [0, 2]);
    assert_eq!(reds(4, &[3]), [3]);
    // A blank image is judged as blank.
    assert_eq!(reds(1, &[]), [0]);
    assert_eq!(reds(4, &[]), [0]);
    // Invisible noise is not content; visible differences are.
    let faint = |levels| {
        let color = |number, y| [100 + 50 * number, if number == 1 && y > 7 { levels } else { 0 }, 0];
        show(&drawn_gif(10, 10, 2, color), DEFAULT_MAX_PIXELS, 5).unwrap().0
    };
    assert_eq!(faint(BLANK_LEVELS), [100]);
    assert_eq!(faint(BLANK_LEVELS + 8), [150]);
    // Squares of a long image, white at one end.
    let mut file = Vec::new();
    let long =
        RgbaImage::from_fn(10, 30, |_, y| Rgba(if y > 20 { [7 * y as u8, 0, 0, 255] } else { [255; 4] }));
    long.write_to(&mut std::io::Cursor::new(&mut file), ImageFormat::Png).unwrap();
    let (reds, seen) = show(&file, DEFAULT_MAX_PIXELS, 5).unwrap();
    assert_eq!((reds.len(), seen.is_whole()), (1, true));
}

#[test]
fn transparent_images_show_over_black_as_well() {
    // Red and opacity of a pixel, by its line.
    let shown = |pixel: fn(u32) -> [u8; 2], max_views| {
        let image = RgbaImage::from_fn(10, 10, |_, y| {
            let [red, alpha] = pixel(y);
            Rgba([red, 255, 255, alpha])
        });
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        show(&file.into_inner(), DEFAULT_MAX_PIXELS, max_views).unwrap()
    };
    // A picture in the opacity of white is blank over white, and visible over black.
    let hidden = |y: u32| [255, 25 * y as u8];
    let (reds, seen) = shown(hidden, 5);
    assert!(reds.len() == 1 && (90..160).contains(&reds[0]) && seen.is_whole(), "{reds:?} {seen:?}");
    // With a single view it is left out, which is reported.
    let (reds, seen) = shown(hidden, 1);
    assert_eq!((reds, seen.is_whole()), (vec![255], false));
    assert_eq!(seen.to_string(), "100 % of its length (over white, and not over black)");
    // A picture that is also in the colours has both views, and an opaque one has one.
    assert_eq!(shown(|y| [25 * y as u8, 128], 5).0.len(), 2);
    let (reds, seen) = shown(|y| [25 * y as u8, 255], 1);
    assert!(reds.len() == 1 && seen.is_whole(), "{reds:?} {seen:?}");
    // A fully transparent image is blank, and judged once.
    let (reds, seen) = shown(|y| [25 * y as u8, 0], 5);
    assert!(reds == [255] && seen.is_whole(), "{reds:?} {seen:?}");
}

#[test]
fn damaged_jpeg_is_seen_in_part() {
    let good = &include_bytes!("../../testdata/restarts.jpg")[..];
    assert!(show(good, DEFAULT_MAX_PIXELS, 5).unwrap().1.is_whole());
    let restart = good.windows(2).position(|bytes| bytes == [0xff, 0xd0]).unwrap();
    let scan = good.windows(2).position(|bytes| bytes == [0xff, 0xda]).unwrap();
    let codes = scan + 2 + usize::from(good[scan + 3]);
    let filled = [&good[..codes], &[0xff; 40], &good[restart..]].concat();
    let stuffed = [&good[..codes], &[0xff, 0, 0xff, 0, 0xff, 0], &good[restart..]].concat();
    let cut = good[..codes + (good.len() - codes) / 3].to_vec();
    for file in [filled, stuffed, [&cut, &[0xff, 0xd9][..]].concat(), cut] {
        let (_, seen) = show(&file, DEFAULT_MAX_PIXELS, 5).unwrap();
        assert!(seen.is_damaged && !seen.is_whole());
        let expected = "100 % of its length (the file is damaged, and shows a part of its picture at most)";
        assert_eq!(seen.to_string(), expected);
    }
}

#[test]
fn frames_past_the_pixel_budget_stay_unseen() {
    // A frame costs at least 4,096 pixels, and the budget is half of an image's pixels.
    let (reds, seen) = show(&gif(10, 10, 60), 20 * 4_096, 5).unwrap();
    assert_eq!(reds, [0, 2, 4, 6, 9]);
    assert_eq!(seen.to_string(), "5 of 60 frames");
    // Frames of more than a sixth of that: only the first is shown.
    let (reds, seen) = show(&gif(100, 100, 6), 50_000, 5).unwrap();
    assert_eq!((reds, seen.to_string()), (vec![0], "1 of 6 frames".to_owned()));
    // Animations of one input share the budget.
    let (recipe, file) = (recipe(), gif(10, 10, 6));
    let mut viewer = Viewer::new(&recipe, 20 * 4_096, 6);
    let mut frames = || viewer.show(&file, &mut |_| Ok(())).unwrap().frames;
    assert_eq!([frames(), frames(), frames()], [6, 4, 1]);
}

#[test]
fn later_frames_are_composed_in_every_format() {
    // In the drawn files the last frame shows a picture, where the first is grey.
    for file in [
        drawn!("second-frame.gif"),
        drawn!("second-frame.png"),
        drawn!("second-frame.webp"),
        drawn!("second-frame-lossy.webp"),
        drawn!("sixty-frames.gif"),
        drawn!("sixty-frames.png"),
        drawn!("sixty-frames.webp"),
        drawn!("cover.png"),
    ] {
        let (reds, _) = show(file, DEFAULT_MAX_PIXELS, 5).unwrap();
        let (last, before) = reds.split_last().unwrap();
        assert!(before.iter().all(|red| red.abs_diff(128) <= 1), "{reds:?}");
        assert!(last.abs_diff(128) > 20, "{reds:?}");
    }
}

#[test]
fn broken_animations_show_decodable_frames() {
    for file in [drawn!("sixty-frames.gif"), drawn!("sixty-frames.png"), drawn!("sixty-frames.webp")] {
        let mut partial = 0;
        for length in (0..file.len()).step_by(211) {
            match show(&file[..length], DEFAULT_MAX_PIXELS, 5) {
                Ok((reds, seen)) => {
                    // All but the last frame are blank.
                    assert_eq!(reds.len(), 1, "{length} bytes: {seen:?}");
                    partial += u32::from(!seen.is_whole());
                }
                Err(Fault::InvalidInput(_) | Fault::UnsupportedMedia(_)) => {}
                Err(other) => panic!("{length} bytes: {other:?}"),
            }
        }
        assert!(partial > 10, "{partial}");
    }
}

#[test]
fn hostile_animations_are_errors_or_bounded() {
    // A canvas smaller than its frames, and frames without a pixel.
    let mut large_frame = gif(4, 4, 2);
    let descriptor = large_frame.iter().rposition(|&byte| byte == 0x2c).unwrap();
    for (at, side) in [(5, 0xffff_u16), (7, 0xffff), (5, 0), (1, 0xfff0)] {
        large_frame[descriptor + at..][..2].copy_from_slice(&side.to_le_bytes());
        let (_, seen) = show(&large_frame, DEFAULT_MAX_PIXELS, 5).unwrap();
        assert!(seen.frames <= 2, "{seen:?}");
    }
    // A GIF of a million frames: its blocks are walked, and a few frames are decoded.
    let one = gif(4, 4, 1);
    let first = one.iter().position(|&byte| byte == 0x2c).unwrap();
    let body = &one[first..one.len() - 1];
    let mut many = one[..first].to_vec();
    many.extend(body.repeat(1_000_000 / body.len() * 20));
    let (reds, seen) = show(&many, DEFAULT_MAX_PIXELS, 5).unwrap();
    assert!(reds.len() == 5 && seen.of_frames > 10_000, "{seen:?}");
    // A WebP file whose picture exceeds its canvas.
    let mut webp = drawn!("second-frame-lossy.webp").to_vec();
    let start = webp.windows(3).position(|bytes| bytes == [0x9d, 0x01, 0x2a]).unwrap();
    webp[start + 3..][..4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert!(matches!(show(&webp, DEFAULT_MAX_PIXELS, 5), Err(Fault::InvalidInput(_))));
}

#[test]
fn mutated_animations_do_not_panic() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    for file in [
        drawn!("disposed.gif"),
        drawn!("cover.png"),
        drawn!("second-frame.webp"),
        drawn!("second-frame-lossy.webp"),
    ] {
        for _ in 0..300 {
            let mut file = file.to_vec();
            for _ in 0..=next() % 4 {
                let at = (usize::from(next()) << 8 | usize::from(next())) % file.len();
                file[at] = next();
            }
            let _ = show(&file, 1 << 20, 5);
        }
    }
}

#[test]
fn small_scales_show_what_whole_jpegs_show() {
    let image = image::RgbImage::from_fn(643, 427, |x, y| {
        let wave = |x: u32, of: f32| 127.0 + 100.0 * (x as f32 / of).sin();
        image::Rgb([wave(x, 60.0) as u8, wave(y, 45.0) as u8, wave(x + 2 * y, 90.0) as u8])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Jpeg).unwrap();
    let file = file.into_inner();
    let recipe = recipe();
    for orientation in 1..=8 {
        // An EXIF segment: a little-endian directory with the entry 0x0112, one 16-bit number.
        let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let file = [&file[..2], &exif, &file[2..]].concat();
        for max_views in [1, 5] {
            let views = |with_whole: bool| {
                let mut views = Vec::new();
                let mut viewer = Viewer::new(&recipe, DEFAULT_MAX_PIXELS, max_views);
                let mut judge = |view: &[[u8; 3]]| {
                    views.extend(view.iter().flatten().copied());
                    Ok(())
                };
                let seen = match with_whole {
                    true => viewer.show_with(&file, &mut judge, &mut |picture, _| {
                        assert!(picture.seen_size() == (643, 427) || picture.seen_size() == (427, 643));
                        Ok(())
                    }),
                    false => viewer.show(&file, &mut judge),
                };
                (seen.unwrap(), views)
            };
            let ((seen, whole), (seen_small, small)) = (views(true), views(false));
            assert_eq!(seen, seen_small);
            assert_eq!(whole.len(), small.len());
            let apart = whole.iter().zip(&small).map(|(one, other)| one.abs_diff(*other)).max();
            // The picture at 1/8 ends with a pixel that is only in part of the file's, and offsets
            // are rounded: up to 12 pixels, by up to 2.2 levels each.
            assert!(apart <= Some(30), "{orientation}, {max_views} views: {apart:?} apart");
        }
    }
}
