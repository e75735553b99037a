//! Recipes of images.

use super::super::*;

const IMAGE: &str = include_str!("../../../../../weights/efficientnet-lite0-int8/card.toml");

/// Parses the card of an image model with `from` replaced by `to`.
fn image(from: &str, to: &str) -> Result<ImageSpec, String> {
    assert!(IMAGE.contains(from), "the card that ships has no {from}");
    let (mut card, _) = parse(&IMAGE.replacen(from, to, 1))?;
    Ok(card.inputs.remove(0).image.unwrap())
}

#[test]
fn invalid_image_recipes_are_rejected() {
    let read = image("127.0", "127.0").unwrap();
    assert_eq!((read.crop, read.mean, read.std), (0.875, Channels([127.0; 3]), Channels([128.0; 3])));
    let cases = [
        ("\"RGB\"", "\"CMYK\"", "`color` is `CMYK`, expected one of RGB, BGR"),
        ("\"bicubic\"", "\"lanczos3\"", "`filter` is `lanczos3`, expected one of bilinear, bicubic, lanczos"),
        ("\"bicubic\"", "\"nearest\"", "`filter` is `nearest`, expected one of bilinear, bicubic, lanczos"),
        ("0.875", "0.0", "`crop` is 0, expected above 0 and at most 1"),
        ("0.875", "nan", "`crop` is NaN, expected above 0 and at most 1"),
        ("127.0", "inf", "`mean` is inf, expected finite numbers"),
        ("127.0", "[1, 2, nan]", "`mean` is 1,2,NaN, expected finite numbers"),
        ("128.0", "0.0", "`std` is 0, expected finite numbers other than 0"),
        ("128.0", "[1, 0, 1]", "`std` is 1,0,1, expected finite numbers other than 0"),
        ("layout = \"NCHW\"\n", "", "`layout` is missing, expected NCHW or NHWC for an input with `image`"),
        ("\"NCHW\"", "\"CHWN\"", "`layout` is `CHWN`, expected one of NCHW, NHWC"),
        (
            "3, 224, 224]",
            "1, 224, 224]",
            "`shape` is (N, 1, 224, 224), expected four axes in the order NCHW, with 3 channels and a fixed height and width",
        ),
        ("\"f32\"", "\"u8\"", "`dtype` is u8, expected f32 for an input with `image`"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(image(from, to).unwrap_err(), format!("input `data`: {expected}"), "{to}");
    }
    let image = IMAGE.replacen("[[inputs]]", "[text]\nmax_tokens = 1\n\n[[inputs]]", 1);
    let message = parse(&image).unwrap_err();
    assert!(message.starts_with("`text` is not allowed with `task` = `image-classification`"), "{message}");
}

#[test]
fn channels_are_one_number_or_three() {
    let three = image("127.0", "[123.7, 116, 103.5]").unwrap().mean;
    assert_eq!(three, Channels([123.7, 116.0, 103.5]));
    assert_eq!(
        (three.to_string().as_str(), Channels([127.0; 3]).to_string().as_str()),
        ("123.7,116,103.5", "127")
    );
    for wrong in ["[1, 2]", "[1, 2, 3, 4]", "[]", "\"1,2,3\"", "true", "{ r = 1 }"] {
        let message = image("127.0", wrong).unwrap_err();
        assert!(message.contains("one number, or a list of three"), "{wrong}: {message}");
    }
}

#[test]
fn pattern_pixels_use_channel_mean_and_std() {
    let card = IMAGE.replacen("127.0", "[10, 20, 30]", 1).replacen("128.0", "1.0", 1);
    let layouts = [
        (card.clone(), [0, 224 * 224, 2 * 224 * 224]),
        (card.replace("NCHW", "NHWC").replacen("3, 224, 224", "224, 224, 3", 1), [0, 1, 2]),
    ];
    for (text, places) in layouts {
        let (card, _) = parse(&text).unwrap();
        let input = &card.inputs[0];
        let tensor = TestInput::Pixels { pattern: Pattern::Bands }.tensor("data", Some(input)).unwrap();
        let values = tensor.to_vec::<f32>().unwrap();
        for (channel, place) in places.into_iter().enumerate() {
            let level = (place / 5 % 256) as f32;
            assert_eq!(values[place], level - 10.0 * (channel + 1) as f32, "{:?}", input.layout);
        }
    }
}
