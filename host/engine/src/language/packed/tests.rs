use std::fs;
use std::path::Path;

use fastrand::Rng;
use infer_kernels::{PACKED_LAYOUT, WeightType};

use super::file::check_sums;
use super::format::{PREFIX_BYTES, Table, check_sections, file_name, read_table};
use super::*;
use crate::language::decoder::Decoder;
use crate::language::kv::KvPool;
use crate::language::tests::support::{file, logits, packed_decoder};
use crate::weights::Bytes;

/// Together they cover fused and split matrices, models with and without biases, a tied head, and
/// most types.
const FILES: [&str; 3] = ["phi3-q4_k.gguf", "qwen2-mixed.gguf", "llama-q4_1.gguf"];

fn slot(folder: &Path) -> PackedSlot {
    PackedSlot { folder: folder.to_owned(), sha256: "5a".repeat(32), content: "5a".repeat(32) }
}

fn load(name: &str, slot: Option<PackedSlot>) -> Decoder {
    packed_decoder(&file(name), 256, slot)
}

fn answer(decoder: &mut Decoder) -> Vec<Vec<f32>> {
    let config = decoder.config();
    let pool = KvPool::new(config.layers, config.attention.layer_bytes(), 8 << 20);
    logits(decoder, &pool, &[3, 50, 120, 7, 200, 99], 4)
}

/// Names in `folder`, except the lock.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".lock").collect();
    names.sort();
    names
}

/// Applies `change` to the bytes of the file of `slot`. Writes a new file, because the first may be
/// mapped.
fn damage(slot: &PackedSlot, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path(slot)).unwrap();
    change(&mut bytes);
    fs::remove_file(path(slot)).unwrap();
    fs::write(path(slot), bytes).unwrap();
}

/// Applies `change` to the table, with a correct checksum.
fn change_table(slot: &PackedSlot, change: impl FnOnce(&mut Table)) {
    damage(slot, |bytes| {
        let mut table = read_table(bytes).unwrap();
        change(&mut table);
        bytes[..HEADER_BYTES].copy_from_slice(&write::header(&table).unwrap());
    });
}

/// Opens the file of `slot` for a matrix of phi3-q4_k, and returns the error.
fn open_error(slot: &PackedSlot) -> String {
    let matrix =
        |name: &str, rows, columns| MatrixSpec { name: name.to_owned(), ty: WeightType::Q4K, rows, columns };
    let sections = fs::read(file(FILES[0])).map(|bytes| Gguf::parse(Bytes::Owned(bytes)).unwrap()).unwrap();
    let output = sections.tensor("blk.0.attn_output.weight").unwrap();
    let spec = matrix("blk.0.attn_output.weight", output.shape[0], output.shape[1]);
    let spec = MatrixSpec { ty: output.ty, ..spec };
    PackedFile::open(slot, &[&spec], &Pool::new(2).unwrap()).err().expect("the file is rejected")
}

#[test]
fn mapped_weights_answer_bit_identically() {
    for name in FILES {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(folder.path());
        let expected = answer(&mut load(name, None));
        let mut first = load(name, Some(slot.clone()));
        assert_eq!(first.packed_file(), Some(path(&slot).as_path()), "{name}");
        assert_eq!(answer(&mut first), expected, "{name}: the start that writes");
        let written = fs::metadata(path(&slot)).unwrap().modified().unwrap();
        let mut second = load(name, Some(slot.clone()));
        assert_eq!(answer(&mut second), expected, "{name}: the start that reads");
        assert_eq!(
            fs::metadata(path(&slot)).unwrap().modified().unwrap(),
            written,
            "{name}: not written again"
        );
        assert_eq!(first.weight_bytes(), load(name, None).weight_bytes());
        assert_eq!(names(folder.path()), [file_name(&slot.sha256, PACKED_LAYOUT)]);
    }
}

#[test]
fn damaged_packed_file_is_reported_and_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    let expected = answer(&mut load(FILES[0], Some(slot.clone())));
    let good = fs::read(path(&slot)).unwrap();
    type Change = fn(&PackedSlot);
    let cases: [(&str, Change); 15] = [
        ("ends at byte 0, within its header", |slot| damage(slot, Vec::clear)),
        ("ends at byte 4096, within its header", |slot| damage(slot, |bytes| bytes.truncate(4096))),
        ("is not a packed file of this version", |slot| damage(slot, |bytes| bytes[13] = b'2')),
        ("has a table of 4294967295 bytes", |slot| damage(slot, |bytes| bytes[16..20].fill(0xff))),
        ("has a damaged table: its checksum differs", |slot| damage(slot, |bytes| bytes[100] ^= 1)),
        ("is damaged: the checksum of matrix `blk.0.attn_qkv.weight` differs", |slot| {
            damage(slot, |bytes| bytes[HEADER_BYTES + 77] ^= 1);
        }),
        ("has matrix `blk.0.attn_qkv.weight` with ", |slot| {
            damage(slot, |bytes| bytes.truncate(HEADER_BYTES + 9));
        }),
        ("has layout 0 and model sha256", |slot| change_table(slot, |table| table.layout = 0)),
        ("model sha256 `none`", |slot| change_table(slot, |table| table.sha256 = "none".to_owned())),
        ("with 64 bytes at", |slot| change_table(slot, |table| table.matrices[0].length = 64)),
        ("bytes at 18446744073709551615 of", |slot| {
            change_table(slot, |table| table.matrices[0].offset = usize::MAX);
        }),
        ("expected a valid shape within", |slot| {
            change_table(slot, |table| table.matrices[0].ggml_type = 99);
        }),
        ("expected a valid shape within", |slot| {
            change_table(slot, |table| table.matrices[0].rows = usize::MAX);
        }),
        ("has matrix `blk.0.attn_qkv.weight` twice", |slot| {
            change_table(slot, |table| table.matrices[1].name = table.matrices[0].name.clone());
        }),
        ("lacks matrix `blk.0.attn_output.weight`", |slot| {
            change_table(slot, |table| {
                table.matrices.retain(|section| section.name != "blk.0.attn_output.weight");
            });
        }),
    ];
    for (reason, change) in cases {
        change(&slot);
        let found = open_error(&slot);
        assert!(found.contains(reason), "{found}; expected {reason}");
        assert_eq!(answer(&mut load(FILES[0], Some(slot.clone()))), expected, "{reason}");
        assert!(fs::read(path(&slot)).unwrap() == good, "{reason}: rewritten");
    }
    // A file of another model under this name: names and shapes differ.
    fs::remove_file(path(&slot)).unwrap();
    load("llama-q4_1.gguf", Some(slot.clone()));
    let found = open_error(&slot);
    assert!(found.contains("matrix `blk.0.attn_output.weight`"), "{found}");
}

#[test]
fn corrupted_header_is_rejected_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    load(FILES[0], Some(slot.clone()));
    let good = fs::read(path(&slot)).unwrap();
    let text = u32::from_le_bytes(good[16..20].try_into().unwrap()) as usize;
    let mut random = Rng::with_seed(7);
    let mut read = 0;
    for round in 0..3_000 {
        let mut bytes = good[..HEADER_BYTES].to_vec();
        for _ in 0..=random.usize(..3) {
            // Digits mostly become other digits, so that the numbers are wrong but valid.
            let at = random.usize(..PREFIX_BYTES + text);
            bytes[at] = match bytes[at] {
                b'0'..=b'9' if random.usize(..8) > 0 => b'0' + random.u8(..10),
                byte => byte ^ 1 << random.usize(..8),
            };
        }
        if round % 8 > 0 {
            // A table that was changed together with its checksum is read, so that its numbers are
            // checked.
            let sum = crc32fast::hash(&bytes[PREFIX_BYTES..PREFIX_BYTES + text]);
            bytes[20..24].copy_from_slice(&sum.to_le_bytes());
        }
        let Ok(table) = read_table(&bytes) else { continue };
        read += 1;
        if check_sections(&table.matrices, &[], good.len()).is_ok() {
            let _ = check_sums(&table.matrices, &good, &Pool::new(1).unwrap());
            let sections = table.matrices.len();
            let file = PackedFile::of(path(&slot), Bytes::Owned(good.clone()), table);
            assert!(file.sections.len() <= sections);
        }
    }
    // The test would prove nothing if no change, or every change, left a valid table.
    assert!((100..2_900).contains(&read), "{read}");
}

#[test]
fn unwritable_folder_does_not_prevent_loading() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let mut decoder = load(FILES[0], Some(slot(&blocked)));
    assert_eq!(decoder.packed_file(), None);
    assert_eq!(answer(&mut decoder), answer(&mut load(FILES[0], None)));
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn partial_files_are_removed_and_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    // Left over from a crash, of this model and of another; and a file of the operator.
    let partial = path(&slot).with_extension("partial");
    fs::write(&partial, "half").unwrap();
    fs::write(folder.path().join(format!("{}-v1.partial", "ab".repeat(32))), "half").unwrap();
    fs::write(folder.path().join("notes.partial"), "mine").unwrap();
    assert!(load(FILES[0], Some(slot.clone())).packed_file().is_some());
    assert_eq!(names(folder.path()), [file_name(&slot.sha256, PACKED_LAYOUT), "notes.partial".to_owned()]);

    // A write error: a folder occupies the file's path.
    fs::remove_file(path(&slot)).unwrap();
    fs::create_dir(path(&slot)).unwrap();
    fs::write(path(&slot).join("inside"), "").unwrap();
    assert_eq!(load(FILES[0], Some(slot.clone())).packed_file(), None);
    assert!(!partial.exists());
}

#[test]
fn concurrent_loads_all_serve_and_one_writes() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    let expected = answer(&mut load(FILES[0], None));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(answer(&mut load(FILES[0], Some(slot.clone()))), expected));
        }
    });
    assert_eq!(names(folder.path()), [file_name(&slot.sha256, PACKED_LAYOUT)]);

    // Another process that holds the lock delays no one.
    fs::remove_file(path(&slot)).unwrap();
    let lock = fs::File::options().write(true).open(folder.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(load(FILES[0], Some(slot.clone())).packed_file(), None);
    drop(lock);
    assert!(load(FILES[0], Some(slot)).packed_file().is_some());
}

#[test]
fn writing_removes_stale_files() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    let model = folder.path().join("model.gguf");
    fs::write(&model, "weights").unwrap();
    let cache = crate::WeightCache { folder: folder.path().to_owned(), rehash: false };
    // A record of an existing model, as its load writes it.
    assert!(crate::Weights::gguf(&model, Some(&cache)).is_err(), "not a model");
    let weights = crate::Weights::gguf(&file(FILES[1]), Some(&cache)).unwrap();
    let there = weights.into_parts().packed.unwrap().sha256;
    let gone = "cd".repeat(32);
    for name in [
        file_name(&slot.sha256, 0),
        file_name(&there, 0),
        file_name(&there, PACKED_LAYOUT),
        file_name(&there, PACKED_LAYOUT + 1),
        file_name(&gone, PACKED_LAYOUT),
        "notes.packed".to_owned(),
    ] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    load(FILES[0], Some(slot.clone()));
    let mut expected = [
        file_name(&slot.sha256, PACKED_LAYOUT),
        file_name(&there, PACKED_LAYOUT),
        file_name(&there, PACKED_LAYOUT + 1),
        "hashes.json".to_owned(),
        "model.gguf".to_owned(),
        "notes.packed".to_owned(),
    ];
    expected.sort();
    assert_eq!(names(folder.path()), expected);
}

#[test]
fn model_modified_while_packed_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache_folder) = (folder.path().join("m.gguf"), folder.path().join("packed"));
    fs::copy(file(FILES[0]), &model).unwrap();
    let cache = crate::WeightCache { folder: cache_folder.clone(), rehash: false };
    let (gguf, slot) = {
        let parts = crate::Weights::gguf(&model, Some(&cache)).unwrap().into_parts();
        (Gguf::parse(parts.model).unwrap(), parts.packed.unwrap())
    };
    let (name, shape, ty) = {
        let tensor = gguf.tensor("blk.0.attn_output.weight").unwrap();
        (tensor.name.to_owned(), tensor.shape.clone(), tensor.ty)
    };
    let spec = MatrixSpec { name, ty, rows: shape[0], columns: shape[1] };
    let pool = Pool::new(1).unwrap();
    // The file is rewritten in place after it was hashed. Otherwise the packed data would be cached
    // under the hash of the previous content.
    let content = fs::read(&model).unwrap();
    fs::write(&model, content).unwrap();
    let error = matrices(&slot, &[&spec], &gguf, &pool).err().expect("it is rejected").to_string();
    assert!(error.contains("changed or replaced while it was loaded"), "{error}");
    assert!(
        !names(&cache_folder).iter().any(|name| name.contains("packed") || name.contains("partial")),
        "{:?}",
        names(&cache_folder)
    );
    assert!(gguf.check_unchanged().is_err());
}
