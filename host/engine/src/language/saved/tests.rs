//! Prefixes over restarts of a model, and files that are not what they should be.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use infer_kernels::{AttentionShape, KvType};

use super::format::{is_ours, is_partial, write};
use crate::WeightCache;
use crate::card::Format;
use crate::language::kv::{KvPool, Sequence};
use crate::language::tests::support::{file, score, scores, soon, tokens};
use crate::language::{LanguageModel, Params, Request, Session};
use crate::model::{Capacity, Weights};
use crate::weights::Bytes;

const MODEL: &str = "llama-q5_k.gguf";

/// A folder for prefixes, and the model that stores them there.
struct Setting {
    folder: tempfile::TempDir,
    capacity: Capacity,
}

impl Setting {
    fn new(kv_type: KvType) -> Self {
        let capacity = Capacity {
            context_tokens: 256,
            max_batch: 32,
            kv_bytes: 8 << 20,
            kv_type,
            prefix_cache_bytes: 8 << 20,
            ..Capacity::of(Format::Gguf)
        };
        Setting { folder: tempfile::tempdir().unwrap(), capacity }
    }

    /// Starts the model.
    fn start(&self) -> LanguageModel {
        let cache = WeightCache { folder: self.folder.path().join("packed"), rehash: false };
        let weights = Weights::gguf(&file(MODEL), Some(&cache)).unwrap().into_parts();
        LanguageModel::load("m", vec![Bytes::map(&file(MODEL)).unwrap()], weights.packed, &self.capacity)
            .unwrap()
    }

    fn prefixes(&self) -> PathBuf {
        self.folder.path().join("prefixes")
    }

    /// Paths of the stored prefixes, and of all that looks like one.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.prefixes()) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|kind| kind == "kv")).collect();
        paths.sort();
        paths
    }
}

/// Number of tokens of a policy, and of a post after it.
const POLICY: u32 = 40;
const POST: u32 = 20;

/// Computes policy `seed`, declared and pinned.
async fn pin(model: &LanguageModel, component: &str, seed: u32) {
    let params = Params { pin: true, ..Params::default() };
    let request = Request { params, ..score(tokens(POLICY, seed), &["yes"]) };
    model.run(&mut Session::new(&Arc::from(component)), request, None, soon()).await.unwrap();
}

/// The scores of a post under policy `seed`, in a session of its own, and the number of tokens that
/// were computed.
async fn judge(model: &LanguageModel, component: &str, seed: u32) -> (Vec<u32>, usize) {
    let mut session = Session::new(&Arc::from(component));
    let request = score([tokens(POLICY, seed), tokens(POST, 77)].concat(), &["yes", "no"]);
    let answer = model.run(&mut session, request, None, soon()).await.unwrap();
    let computed = answer.usage.prompt_tokens - answer.usage.cached_tokens;
    (scores(answer.output).into_iter().map(f32::to_bits).collect(), computed)
}

const WARM: usize = POST as usize;
const COLD: usize = (POLICY + POST) as usize;

#[tokio::test]
async fn restarted_model_answers_warm_and_bit_identically() {
    for kv_type in KvType::ALL {
        let mut setting = Setting::new(kv_type);
        let model = setting.start();
        pin(&model, "moderate", 1).await;
        let expected = judge(&model, "moderate", 1).await;
        assert_eq!(expected.1, WARM);
        drop(model);
        assert_eq!(setting.files().len(), 1);
        let model = setting.start();
        assert_eq!(judge(&model, "moderate", 1).await, expected);
        assert_eq!(judge(&model, "moderate", 2).await.1, COLD, "another policy");
        assert_eq!(judge(&model, "other", 1).await.1, COLD, "another component");
        drop(model);
        // Another configuration of the model neither uses nor removes the file.
        setting.capacity.context_tokens = 255;
        assert_eq!(judge(&setting.start(), "moderate", 1).await.1, COLD);
        assert_eq!(setting.files().len(), 1);
        setting.capacity.prefix_cache_bytes = 0;
        setting.capacity.context_tokens = 256;
        assert_eq!(judge(&setting.start(), "moderate", 1).await.1, COLD, "the option is off");
    }
}

#[tokio::test]
async fn text_of_a_user_is_not_stored() {
    let setting = Setting::new(KvType::F16);
    let model = setting.start();
    judge(&model, "moderate", 1).await;
    drop(model);
    assert_eq!(setting.files().len(), 0);
}

#[tokio::test]
async fn invalid_files_are_removed_and_written_again() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 10] = [
        ("empty", Vec::clear),
        ("within its magic", |bytes| bytes.truncate(9)),
        ("within its header", |bytes| bytes.truncate(100)),
        ("within its blocks", |bytes| bytes.truncate(bytes.len() - 1)),
        ("longer", |bytes| bytes.push(0)),
        ("another magic", |bytes| bytes[0] ^= 1),
        ("a huge header", |bytes| bytes[16..20].fill(0xff)),
        ("another token", |bytes| {
            let at = bytes.windows(8).position(|part| part == b"tokens\":").unwrap();
            bytes[at + 9] ^= 1;
        }),
        ("a byte of a block", |bytes| *bytes.last_mut().unwrap() ^= 0x10),
        ("another program's file", |bytes| bytes.fill(b'x')),
    ];
    let setting = Setting::new(KvType::Int8);
    let model = setting.start();
    pin(&model, "moderate", 1).await;
    drop(model);
    let path = setting.files().remove(0);
    let valid = fs::read(&path).unwrap();
    for (what, change) in changes {
        let mut bytes = valid.clone();
        change(&mut bytes);
        assert!(bytes != valid, "{what}");
        fs::write(&path, bytes).unwrap();
        let model = setting.start();
        assert_eq!(judge(&model, "moderate", 1).await.1, COLD, "{what}");
        assert!(!path.exists(), "{what}");
        pin(&model, "moderate", 1).await;
        drop(model);
        assert!(fs::read(&path).unwrap() == valid, "{what}");
    }
    // A valid file under the name of another one.
    let name = path.file_name().unwrap().to_str().unwrap();
    let other = path.with_file_name(format!("{}{}.kv", &name[..17], "0".repeat(64)));
    fs::rename(&path, &other).unwrap();
    assert_eq!(judge(&setting.start(), "moderate", 1).await.1, COLD);
    assert!(!other.exists());
}

#[tokio::test]
async fn oldest_files_are_removed_beyond_the_limit() {
    let mut setting = Setting::new(KvType::F16);
    let store = async |setting: &Setting, seed| {
        pin(&setting.start(), "moderate", seed).await;
        setting.files().len()
    };
    assert_eq!(store(&setting, 1).await, 1);
    let bytes = fs::metadata(&setting.files()[0]).unwrap().len() as usize;
    // The remains of a crash, and a file of someone else.
    let name = setting.files()[0].file_name().unwrap().to_str().unwrap().to_owned();
    let (partial, foreign) = (format!(".{name}.0123456789abcdef.partial"), "notes.kv");
    for name in [partial.as_str(), foreign] {
        fs::write(setting.prefixes().join(name), "").unwrap();
    }
    setting.capacity.prefix_cache_bytes = bytes * 5 / 2;
    assert_eq!(store(&setting, 2).await, 2 + 1);
    assert_eq!(store(&setting, 3).await, 2 + 1);
    let model = setting.start();
    let mut computed = Vec::new();
    for seed in 1..=3 {
        computed.push(judge(&model, "moderate", seed).await.1);
    }
    assert_eq!(computed, [COLD, WARM, WARM]);
    assert!(!setting.prefixes().join(partial).exists() && setting.prefixes().join(foreign).exists());
    drop(model);
    setting.capacity.prefix_cache_bytes = bytes - 1;
    assert_eq!(store(&setting, 4).await, 2 + 1, "one that exceeds the limit removes nothing");
}

#[test]
fn names_of_other_programs_are_left_alone() {
    let ours = format!("{}-{}.kv", "0a".repeat(8), "b1".repeat(32));
    assert!(is_ours(&ours) && is_partial(&format!(".{ours}.0123456789abcdef.partial")));
    for name in
        ["", "-.kv", ".lock", &ours[1..], &ours.replace('a', "x"), &format!("{ours}~"), &format!("é{ours}")]
    {
        assert!(!is_ours(name) && !is_partial(&format!(".{name}.0.partial")), "{name}");
    }
}

/// The rest of the last block may hold the text of a user.
#[test]
fn slots_after_the_prefix_are_zero() {
    for kv_type in KvType::ALL {
        let shape = AttentionShape { kv_type, ..AttentionShape::new(4, 2, 64) };
        let pool = KvPool::new(3, shape.layer_bytes(), 1 << 20);
        let mut sequence = Sequence::default();
        sequence.extend(&pool, &tokens(30, 1)).unwrap();
        sequence.blocks_mut().for_each(|block| block.fill(0xab));
        let mut bytes = Vec::new();
        write(&mut bytes, b"header", &sequence.fork_at(21), &shape).unwrap();
        let (start, blocks) = bytes.split_at(24 + 6);
        assert_eq!((&start[..16], &start[24..]), (&b"infer prefix 1\r\n"[..], &b"header"[..]));
        let (first, last) = blocks.split_at(pool.block_bytes());
        assert!(first.iter().all(|byte| *byte == 0xab));
        let zeros = last.iter().filter(|byte| **byte == 0).count();
        assert_eq!(
            (last.len(), zeros),
            (pool.block_bytes(), pool.block_bytes() / 16 * (16 - 5)),
            "{kv_type:?}"
        );
    }
}
