//! Compares `Recipe` with Pillow and with results by hand.

use image::metadata::Orientation;

use super::super::orientation::stored_region;
use super::super::picture::Pixels;
use super::*;
use crate::settings::Settings;

/// The pattern that `testdata/pillow.py` draws.
fn pattern(width: u32, height: u32, exif: u8) -> Picture {
    let pixel = |x: u32, y: u32| [x * x + 3 * y, x * y, x ^ y].map(|value| (40 + value % 176) as u8);
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let orientation = Orientation::from_exif(exif).unwrap();
    Picture::whole((width, height), Pixels::Rgb(pixels), orientation)
}

impl Recipe {
    /// The central square of a picture.
    fn middle(&self, picture: &Picture) -> Vec<[u8; 3]> {
        let (offsets, _) = self.offsets(picture.size(), 1);
        self.resize(picture, offsets[0]).unwrap()
    }
}

fn recipe(size: u32, crop: f64, filter: Filter) -> Recipe {
    Recipe {
        width: size,
        height: size,
        layout: Layout::Nchw,
        color: Color::Rgb,
        crop,
        filter,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

#[test]
fn resized_squares_equal_pillow() {
    let golden = include_bytes!("../../testdata/pillow.rgb");
    let cases = [
        (301, 200, 0.875, Filter::Bicubic, 1),
        (150, 401, 1.0, Filter::Bilinear, 1),
        (20, 31, 1.0, Filter::Bicubic, 1),
        (97, 64, 0.875, Filter::Lanczos, 1),
        (24, 24, 1.0, Filter::Bicubic, 1),
        (120, 81, 0.75, Filter::Bicubic, 6),
        (81, 120, 0.75, Filter::Bicubic, 7),
        (120, 81, 0.75, Filter::Bicubic, 3),
    ];
    assert_eq!(golden.len(), cases.len() * 24 * 24 * 3);
    for (case, expected) in cases.into_iter().zip(golden.chunks_exact(24 * 24 * 3)) {
        let (width, height, crop, filter, exif) = case;
        let found = recipe(24, crop, filter).middle(&pattern(width, height, exif));
        let apart = found.iter().flatten().zip(expected).map(|(one, other)| one.abs_diff(*other)).max();
        // Each of the two passes rounds.
        assert!(apart <= Some(1), "{case:?}: {apart:?} apart");
    }
}

#[test]
fn grey_and_padded_pixels_resize_like_rgb() {
    let rgb = |value: u8| [value; 3];
    let ramp: Vec<u8> = (0..64 * 48).map(|index| (index * 7) as u8).collect();
    let picture = |pixels| Picture::whole((64, 48), pixels, Orientation::NoTransforms);
    let recipe = recipe(16, 0.9, Filter::Bicubic);
    let grey = recipe.middle(&picture(Pixels::Grey(ramp.clone())));
    let others = [
        Pixels::Rgb(ramp.iter().copied().flat_map(rgb).collect()),
        Pixels::RgbPadded(ramp.iter().flat_map(|&value| [value, value, value, 99]).collect()),
    ];
    for other in others {
        assert_eq!(recipe.middle(&picture(other)), grey);
    }
}

#[test]
fn one_pixel_is_enough() {
    let tensor = recipe(8, 0.875, Filter::Bicubic).middle(&pattern(1, 1, 1));
    assert_eq!(tensor, [[40; 3]; 8 * 8]);
}

#[test]
fn numbers_follow_layout_and_color() {
    let picture = Picture::whole((2, 2), Pixels::Rgb((0..12).collect()), Orientation::NoTransforms);
    let mut recipe = recipe(2, 1.0, Filter::Bicubic);
    recipe.mean = [0.0, 1.0, 2.0];
    recipe.std = [1.0, 1.0, 0.5];
    let run = |recipe: &Recipe| {
        let mut tensor = Vec::new();
        recipe.apply(&picture, &mut tensor).unwrap();
        tensor
    };
    assert_eq!(run(&recipe), [0., 3., 6., 9., 0., 3., 6., 9., 0., 6., 12., 18.]);
    assert_eq!(recipe.shape(5), [5, 3, 2, 2]);
    recipe.layout = Layout::Nhwc;
    assert_eq!(run(&recipe), [0., 0., 0., 3., 3., 6., 6., 6., 12., 9., 9., 18.]);
    assert_eq!(recipe.shape(5), [5, 2, 2, 3]);
    recipe.color = Color::Bgr;
    assert_eq!(run(&recipe)[..3], [2., 0., -4.]);
}

#[test]
fn views_cover_the_longer_side_evenly() {
    // Size, crop, maximum of views; offsets, and the share of the longer side.
    let cases: [(_, f64, u32, &[u32], f64); 14] = [
        ((100, 100), 1.0, 5, &[0], 1.0),
        ((133, 100), 1.0, 5, &[16], 1.0),
        ((134, 100), 1.0, 5, &[0, 17, 34], 1.0),
        ((100, 150), 1.0, 5, &[0, 25, 50], 1.0),
        ((160, 90), 1.0, 5, &[0, 35, 70], 1.0),
        ((160, 90), 1.0, 2, &[0, 70], 1.0),
        ((160, 90), 1.0, 1, &[35], 0.5625),
        ((400, 100), 1.0, 5, &[0, 75, 150, 225, 300], 1.0),
        ((500, 100), 1.0, 5, &[0, 100, 200, 300, 400], 1.0),
        ((1000, 100), 1.0, 5, &[0, 225, 450, 675, 900], 0.5),
        ((1000, 100), 1.0, 1, &[450], 0.1),
        ((200, 100), 0.8, 5, &[10, 60, 110], 1.0),
        ((1, 16_000_000), 1.0, 3, &[0, 7_999_999, 15_999_999], 3.0 / 16_000_000.0),
        ((2, 1), 0.5, 5, &[0, 1], 1.0),
    ];
    for (size, crop, max, expected, share) in cases {
        let (offsets, found) = recipe(24, crop, Filter::Bicubic).offsets(size, max);
        assert_eq!(offsets, expected, "{size:?}, {crop}, {max}");
        assert!((found - share).abs() < 1e-9, "{size:?}, {crop}, {max}: {found}");
    }
}

#[test]
fn views_follow_the_orientation() {
    // The left part of the oriented picture, for each stored orientation.
    let seen = pattern(90, 40, 1);
    let expected = recipe(8, 1.0, Filter::Bicubic).resize(&seen, 50).unwrap();
    let Pixels::Rgb(pixels) = &seen.pixels else { unreachable!() };
    let turned = (0..90).flat_map(|x| (0..40).rev().map(move |y| (x, y)));
    // Stored so that a rotation by 270 degrees shows it.
    let stored = turned.flat_map(|(x, y)| pixels[3 * (y * 90 + x)..][..3].to_vec()).collect();
    let orientation = Orientation::Rotate270;
    let stored = Picture::whole((40, 90), Pixels::Rgb(stored), orientation);
    let found = recipe(8, 1.0, Filter::Bicubic).resize(&stored, 50).unwrap();
    let apart = found.iter().flatten().zip(expected.iter().flatten());
    // Each of the two passes rounds, and they change places.
    assert!(apart.map(|(one, other)| one.abs_diff(*other)).max() <= Some(1));
}

fn settings(changed: &str, value: &str) -> Settings {
    let facts = [
        ("models.image.task", "image-classification"),
        ("models.image.input.dtype", "f32"),
        ("models.image.input.shape", "N,3,224,192"),
        ("models.image.input.layout", "NCHW"),
        ("models.image.input.image.color", "RGB"),
        ("models.image.input.image.crop", "0.875"),
        ("models.image.input.image.filter", "bicubic"),
        ("models.image.input.image.mean", "127"),
        ("models.image.input.image.std", "127.5, 128, 128.5"),
    ];
    let pairs = facts.map(|(key, fact)| {
        let fact = if key == format!("models.image.{changed}") { value } else { fact };
        (key.to_owned(), fact.to_owned())
    });
    Settings::from_pairs(pairs.to_vec())
}

#[test]
fn recipe_comes_from_the_card() {
    let settings = settings("", "");
    let found = Recipe::from_card(&settings.card("image").unwrap()).unwrap();
    let mean = [127.0; 3];
    let std = [127.5, 128.0, 128.5];
    assert_eq!(found, Recipe { width: 192, height: 224, mean, std, ..recipe(0, 0.875, Filter::Bicubic) });
}

#[test]
fn unsupported_card_names_the_key() {
    for (key, value) in [
        ("input.dtype", "u8"),
        ("input.shape", "N,1,224,224"),
        ("input.shape", "N,3,H,W"),
        ("input.shape", "N,3,0,224"),
        ("input.layout", "NC4HW"),
        ("input.image.color", "CMYK"),
        ("input.image.crop", "0"),
        ("input.image.crop", "1.1"),
        ("input.image.filter", "mitchell"),
        ("input.image.mean", "1,2"),
        ("input.image.std", "1,0,1"),
        ("input.image.std", "a,1,2,3"),
    ] {
        let settings = settings(key, value);
        match Recipe::from_card(&settings.card("image").unwrap()) {
            Err(Fault::Internal(message)) => assert!(message.contains(&format!("`{key}`")), "{message}"),
            other => panic!("`{key}` = `{value}`: {other:?}"),
        }
    }
}

#[test]
fn jpeg_part_is_small_and_contains_the_views() {
    // Size, crop, maximum of views; the scale in eighths.
    for (size, crop, max, scale) in [
        ((600, 400), 0.875, 1, 8),
        ((1411, 1411), 0.875, 1, 4),
        ((4000, 3000), 0.875, 1, 2),
        ((3000, 4000), 0.875, 5, 2),
        ((4100, 4099), 1.0, 5, 1),
        ((9000, 100), 1.0, 5, 8),
        ((1, 1), 0.5, 5, 8),
    ] {
        let recipe = recipe(224, crop, Filter::Bicubic);
        for orientation in (1..=8).filter_map(Orientation::from_exif) {
            let (found, part) = recipe.part(size, orientation, max);
            assert_eq!(found, scale, "{size:?}");
            let scaled = |side: u32| (side * scale).div_ceil(8);
            let stored = (scaled(size.0), scaled(size.1));
            let window = stored_region(orientation, stored, part);
            let pixels = Pixels::Grey(vec![7; (window.width * window.height) as usize]);
            let picture = Picture { width: stored.0, height: stored.1, window, pixels, orientation };
            for offset in recipe.offsets(size, max).0 {
                recipe.resize(&picture, scaled_offset(offset, scale)).unwrap();
            }
            let half = u64::from(window.width) * u64::from(window.height) * 2;
            assert!(max > 1 || half <= 2 * u64::from(stored.0) * u64::from(stored.1));
        }
    }
}
