//! A model in three files, which tests/scripts/split_model.py wrote from phi3-q8_0-window.gguf.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::{decoder, file, logits, packed_decoder, tokens};
use crate::language::kv::KvPool;
use crate::{GgufSummary, WeightCache, Weights};

const WHOLE: &str = "phi3-q8_0-window.gguf";
const PARTS: [&str; 3] =
    ["split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"];

/// Copies the parts to a folder, and returns it with the path of the first.
fn copies() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in PARTS {
        fs::copy(file(name), folder.path().join(name)).unwrap();
    }
    let first = folder.path().join(PARTS[0]);
    (folder, first)
}

#[test]
fn model_in_parts_answers_bit_identically() {
    let answer = |name| {
        let (mut decoder, pool) = decoder(name, 256);
        logits(&mut decoder, &pool, &tokens(40, 1), 16)
    };
    assert_eq!(answer(PARTS[0]), answer(WHOLE));
    let (parts, whole) =
        (GgufSummary::read(&file(PARTS[0])).unwrap(), GgufSummary::read(&file(WHOLE)).unwrap());
    assert_eq!(parts.weight_types, whole.weight_types);
    assert_eq!(parts.card.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), PARTS);
}

#[test]
fn packed_file_belongs_to_all_parts() {
    let (folder, first) = copies();
    let cache = WeightCache { folder: folder.path().join("packed"), rehash: false };
    let slot = || Weights::gguf(&first, Some(&cache)).unwrap().into_parts().packed.unwrap();
    let answer = |slot| {
        let mut decoder = packed_decoder(&first, 256, slot);
        let config = decoder.config();
        let pool = KvPool::new(config.layers, config.attention.layer_bytes(), 8 << 20);
        logits(&mut decoder, &pool, &tokens(8, 1), 8)
    };
    let before = slot();
    let expected = answer(Some(before.clone()));
    assert_eq!(answer(None), expected);
    assert_eq!(answer(Some(before.clone())), expected);

    // Another last part: the first one still names the packed file, which is written again.
    let last = folder.path().join(PARTS[2]);
    let mut content = fs::read(&last).unwrap();
    let end = content.len();
    content[end - 100..].fill(0x11);
    fs::remove_file(&last).unwrap();
    fs::write(&last, content).unwrap();
    let after = slot();
    assert_eq!(after.sha256, before.sha256);
    assert_ne!(after.content, before.content);
    assert_ne!(answer(None), expected);
    assert_eq!(answer(Some(after)), answer(None));
}

#[test]
fn wrong_parts_are_rejected_by_name() {
    type Change = fn(&Path);
    let cases: [(Change, &str); 5] = [
        (
            |folder| fs::remove_file(folder.join(PARTS[1])).unwrap(),
            "part 2 of 3 is missing; expected it beside the first part as `split-00002-of-00003.gguf`",
        ),
        (
            |folder| assert!(fs::copy(folder.join(PARTS[2]), folder.join(PARTS[1])).is_ok()),
            "part 2 of 3: key `split.no` is 2; expected 1 by the file's name and place",
        ),
        (
            |folder| assert!(fs::copy(file(WHOLE), folder.join(PARTS[1])).is_ok()),
            "part 2 of 3: key `split.count` is missing; expected 3 by the file's name and place",
        ),
        (
            |folder| fs::write(folder.join(PARTS[2]), "GGUF").unwrap(),
            "part 3 of 3: the GGUF file ends within its header: the version at byte 4 takes 4 bytes, but 0 \
             remain; download the file again",
        ),
        (
            |folder| fs::rename(folder.join(PARTS[1]), folder.join(PARTS[0])).unwrap(),
            "part 2 of 3 is missing; expected it beside the first part as `split-00002-of-00003.gguf`",
        ),
    ];
    for (change, expected) in cases {
        let (folder, first) = copies();
        change(folder.path());
        for error in [Weights::gguf(&first, None).err(), GgufSummary::read(&first).err()] {
            let error = error.expect("the model is rejected").to_string();
            assert_eq!(error, format!("`{}`: {expected}", first.display()));
        }
    }
    let error = GgufSummary::read(&file(PARTS[1])).unwrap_err().to_string();
    let expected = "key `split.count` is 3: the file is part 2 of 3; expected the first part, with its name \
                    `NAME-00001-of-00003.gguf` and the other parts beside it";
    assert!(error.ends_with(expected), "{error}");
}
