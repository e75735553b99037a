use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::SystemTime;

use wasmtime::Config;

use super::*;
use crate::limits::MAX_CACHE_ENTRIES;

fn engine(epochs: bool) -> Engine {
    Engine::new(Config::new().epoch_interruption(epochs)).unwrap()
}

/// A component that is empty except for its preamble.
fn component(engine: &Engine) -> (Vec<u8>, Component) {
    let bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let component = Component::from_binary(engine, &bytes).unwrap();
    (bytes, component)
}

/// Writes an entry; returns the component's bytes.
fn write_entry(folder: &Path, engine: &Engine) -> Vec<u8> {
    let (bytes, component) = component(engine);
    let entry = Entry::new(folder, engine, &bytes);
    let size = entry.write(&component).unwrap();
    assert_eq!(size, fs::metadata(entry.path()).unwrap().len());
    bytes
}

fn refusal(entry: &Entry<'_>, engine: &Engine) -> String {
    entry.open(engine).expect_err("the entry is refused")
}

#[test]
fn entry_is_specific_to_component_and_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, other) = (engine(true), engine(false));
    let (bytes, _) = component(&engine);
    assert!(Entry::new(folder.path(), &engine, &bytes).open(&engine).unwrap().is_none());
    write_entry(folder.path(), &engine);
    assert!(Entry::new(folder.path(), &engine, &bytes).open(&engine).unwrap().is_some());
    assert!(Entry::new(folder.path(), &engine, b"other").open(&engine).unwrap().is_none());
    assert!(Entry::new(folder.path(), &other, &bytes).open(&other).unwrap().is_none(), "other settings");
    let modes =
        ["key"].map(|name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o600]);
}

#[test]
fn damaged_and_cut_entries_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(true);
    let bytes = write_entry(folder.path(), &engine);
    let entry = Entry::new(folder.path(), &engine, &bytes);
    let good = fs::read(entry.path()).unwrap();
    let write = |bytes: &[u8]| {
        fs::remove_file(entry.path()).unwrap();
        fs::write(entry.path(), bytes).unwrap();
    };
    // Each byte of the header, and about a hundred of the code.
    let step = (good.len() - HEADER_BYTES) / 128 + 1;
    for at in (0..HEADER_BYTES).chain((HEADER_BYTES..good.len()).step_by(step)) {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        write(&flipped);
        let reason = refusal(&entry, &engine);
        let expected = if at < MAGIC.len() { "is not a compiled component" } else { "its MAC differs" };
        assert!(reason.contains(expected), "byte {at}: {reason}");
    }
    for length in [0, 1, MAGIC.len(), HEADER_BYTES - 1] {
        write(&good[..length]);
        assert_eq!(refusal(&entry, &engine), format!("ends at byte {length}, within its header"));
    }
    for length in [HEADER_BYTES, HEADER_BYTES + 1, good.len() - 1] {
        write(&good[..length]);
        assert!(refusal(&entry, &engine).contains("its MAC differs"), "{length}");
    }
    write(&[&good[..], b"\0"].concat());
    assert!(refusal(&entry, &engine).contains("its MAC differs"));
    write(&good);
    assert!(entry.open(&engine).unwrap().is_some());
}

#[test]
fn foreign_and_renamed_entries_are_rejected() {
    let (folder, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (engine, other) = (engine(true), engine(false));
    let bytes = write_entry(folder.path(), &engine);
    write_entry(foreign.path(), &engine);
    let entry = Entry::new(folder.path(), &engine, &bytes);
    let theirs = Entry::new(foreign.path(), &engine, &bytes);
    fs::copy(theirs.path(), entry.path()).unwrap();
    assert!(refusal(&entry, &engine).contains("was signed with another key"));

    // Signed by this machine, and renamed to another component's or another engine's entry.
    write_entry(folder.path(), &engine);
    let renamed = Entry::new(folder.path(), &engine, b"other");
    fs::copy(entry.path(), renamed.path()).unwrap();
    assert_eq!(refusal(&renamed, &engine), "belongs to another component or to another engine");
    let renamed = Entry::new(folder.path(), &other, &bytes);
    fs::copy(entry.path(), renamed.path()).unwrap();
    assert_eq!(refusal(&renamed, &other), "belongs to another component or to another engine");
}

#[test]
fn key_readable_by_others_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(true);
    let bytes = write_entry(folder.path(), &engine);
    let entry = Entry::new(folder.path(), &engine, &bytes);
    let path = folder.path().join("key");
    let before = fs::read(&path).unwrap();
    for damage in [0o644, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(damage)).unwrap();
        assert!(refusal(&entry, &engine).contains("its MAC differs"), "{damage:o}");
        assert_ne!(fs::read(&path).unwrap(), before);
        write_entry(folder.path(), &engine);
        assert!(entry.open(&engine).unwrap().is_some());
    }
    fs::write(&path, "short").unwrap();
    assert!(refusal(&entry, &engine).contains("its MAC differs"));
    assert_eq!(fs::read(&path).unwrap().len(), 32);
}

#[test]
fn newest_entries_stay_and_foreign_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(true);
    for index in 0..MAX_CACHE_ENTRIES + 10 {
        let path = folder.path().join(format!("{index}.{EXTENSION}"));
        fs::write(&path, "").unwrap();
        let age = std::time::Duration::from_secs(1_000 - index as u64);
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }
    fs::write(folder.path().join("left.partial"), "").unwrap();
    fs::write(folder.path().join("mine.txt"), "").unwrap();
    write_entry(folder.path(), &engine);
    let there = |name: &str| folder.path().join(name).exists();
    assert!(!there("left.partial") && there("mine.txt") && there("key"));
    assert!(!there(&format!("10.{EXTENSION}")) && there(&format!("11.{EXTENSION}")));
}

#[test]
fn unwritable_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let engine = engine(true);
    let (bytes, component) = component(&engine);
    let below = file.join("below");
    assert!(Entry::new(&below, &engine, &bytes).write(&component).is_err());
}

#[test]
fn fifos_and_links_cost_a_compilation() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(true);
    let bytes = write_entry(folder.path(), &engine);
    let entry = Entry::new(folder.path(), &engine, &bytes);
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let fifo = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    // The entry itself.
    fs::remove_file(entry.path()).unwrap();
    fifo(entry.path());
    assert_eq!(refusal(&entry, &engine), "cannot be read: it is a FIFO, expected a regular file");
    write_entry(folder.path(), &engine);
    fs::remove_file(entry.path()).unwrap();
    symlink(&victim, entry.path()).unwrap();
    assert_eq!(refusal(&entry, &engine), "cannot be read: it is a symbolic link, expected a regular file");
    write_entry(folder.path(), &engine);
    assert!(entry.open(&engine).unwrap().is_some());
    // The key, which is replaced.
    let key = folder.path().join("key");
    for place in [&fifo as &dyn Fn(&Path), &|path: &Path| symlink(&victim, path).unwrap()] {
        fs::remove_file(&key).unwrap();
        place(&key);
        assert!(refusal(&entry, &engine).contains("its MAC differs"));
        write_entry(folder.path(), &engine);
        assert!(entry.open(&engine).unwrap().is_some());
    }
    // The lock: nothing is cached, and nothing blocks.
    let lock = folder.path().join(LOCK);
    let (_, component) = component(&engine);
    for place in [&fifo as &dyn Fn(&Path), &|path: &Path| symlink(&victim, path).unwrap()] {
        fs::remove_file(&lock).unwrap();
        place(&lock);
        assert!(entry.write(&component).unwrap_err().to_string().ends_with("expected a regular file"));
    }
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}
