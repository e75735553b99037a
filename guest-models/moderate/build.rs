//! Embeds the text model's vocabulary in the guest as constant data.
//!
//! An instance lives for one request, so it must start without building anything. The table is
//! three constant arrays: slots (found by hash, open addressing), the start of each word, and the
//! words. Words are in the order of their ids, which is that of their frequency: an ordinary text
//! touches few of its pages.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

#[path = "src/hash.rs"]
mod hash;

const VOCABULARY: &str = "../../weights/toxic-bilstm/vocab.json";

fn main() {
    println!("cargo::rerun-if-changed={VOCABULARY}");
    println!("cargo::rerun-if-changed=src/hash.rs");
    let json = std::fs::read(VOCABULARY).expect("weights/toxic-bilstm/vocab.json is in the repository");
    let digest: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
    let json: Value = serde_json::from_slice(&json).expect("vocab.json is JSON");
    let code = table(&json) + &format!("pub(super) static SHA256: &str = {digest:?};\n");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("table.rs"), code).expect("OUT_DIR can be written");
}

fn table(json: &Value) -> String {
    let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("vocab.json: `{key}` is a string"));
    assert_eq!(json["lower"], true, "vocab.json: the tokeniser lowers case");
    assert_eq!(text("split"), " ", "vocab.json: words stand between spaces");
    assert!(json["oov_token"].is_null(), "vocab.json: unknown words are dropped");

    let mut words: Vec<(u16, &str)> = json["vocab"]
        .as_object()
        .expect("vocab.json: `vocab` maps words to ids")
        .iter()
        .map(|(word, id)| {
            (id.as_u64().and_then(|id| u16::try_from(id).ok()).expect("ids are small"), word.as_str())
        })
        .collect();
    words.sort_unstable();
    assert!(words.len() < hash::SLOTS * 3 / 4, "vocab.json: more words than the table is made for");

    let mut slots = vec![0; hash::SLOTS];
    let mut starts = vec![0];
    let mut text_of_all = String::new();
    for (index, (id, word)) in words.iter().enumerate() {
        assert_eq!(usize::from(*id), index + 1, "vocab.json: ids count from 1 without a gap");
        let hash = hash::hash(word.as_bytes());
        let mut at = hash::first_slot(hash);
        while slots[at] != 0 {
            at = (at + 1) % hash::SLOTS;
        }
        slots[at] = hash::slot(hash, *id);
        text_of_all.push_str(word);
        starts.push(text_of_all.len());
    }

    // Separators of the model's tokeniser, and line ends and blanks that it does not know.
    let separators: Vec<char> = text("filters").chars().chain(" \r\u{b}\u{c}".chars()).collect();
    let kind = |byte: u8| match char::from(byte) {
        separator if separators.contains(&separator) => "Ascii::Separator",
        other if !other.is_ascii() || other.is_control() => "Ascii::Other",
        _ => "Ascii::Letter",
    };
    let kinds: Vec<_> = (0..=u8::MAX).map(kind).collect();

    let mut code = String::new();
    let mut constant = |ty: String, value: String| writeln!(code, "pub(super) static {ty} = {value};");
    constant(format!("SLOTS: [u32; {}]", slots.len()), format!("{slots:?}")).expect("a string takes all");
    constant(format!("STARTS: [u32; {}]", starts.len()), format!("{starts:?}")).expect("a string takes all");
    constant("WORDS: &str".to_owned(), format!("{text_of_all:?}")).expect("a string takes all");
    constant("ASCII: [Ascii; 256]".to_owned(), format!("[{}]", kinds.join(", ")))
        .expect("a string takes all");
    code
}
