use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use infer_engine::{CardFile, Role};
use sha2::{Digest as _, Sha256};

use super::cache::{BLOBS, LOCK, MODELS};
use super::*;

/// Creates a store in a temporary folder, and a file for it.
fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store { cache: folder.path().join("cache") };
    (folder, store)
}

fn file(content: &str) -> CardFile {
    let sha256 = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    CardFile { path: "m.gguf".to_owned(), role: Role::Model, bytes: content.len() as u64, sha256 }
}

/// Stores `content` as the model `name`, as `infer pull` would.
fn keep(store: &Store, name: &str, content: &str) -> PathBuf {
    let folder = store.model(name).unwrap();
    folder.replace("fetched", content.as_bytes(), 0o600).unwrap();
    let opened = folder.open_file("fetched").unwrap();
    let whole = VerifiedFile { folder: &folder, name: "fetched", file: &opened };
    store.insert(&file(content), whole, &folder).unwrap();
    folder.join("m.gguf")
}

fn names(store: &Store) -> Vec<String> {
    store.list().unwrap().into_iter().map(|stored| stored.name).collect()
}

#[test]
fn shared_blob_is_removed_with_its_last_model() {
    let (_folder, store) = store();
    let one = keep(&store, "one", "content");
    assert_eq!(fs::read_to_string(&one).unwrap(), "content");
    assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o444);
    let folder = store.model("two").unwrap();
    let two = folder.join("m.gguf");
    assert!(store.link_existing(&file("content"), &folder).unwrap());
    assert!(!store.link_existing(&file("other"), &folder).unwrap());
    assert_eq!(fs::canonicalize(&one).unwrap(), fs::canonicalize(&two).unwrap());
    assert_eq!(names(&store), ["one", "two"]);

    assert_eq!(store.remove("one").unwrap(), Freed::default(), "the other has it still");
    assert_eq!(fs::read_to_string(&two).unwrap(), "content");
    assert_eq!(store.remove("two").unwrap(), Freed { files: 1, bytes: 7 });
    assert!(!store.blob(&file("content").sha256).exists());
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn fetched_file_has_the_card_of_the_program() {
    let (_folder, store) = store();
    fs::write(store.model("minilm").unwrap().join("model.onnx"), "cut").unwrap();
    let listed = store.list().unwrap();
    let [stored] = &listed[..] else { panic!("{} files", listed.len()) };
    assert_eq!((stored.file.as_ref().map(|file| file.bytes), stored.bytes), (Some(22_928_619), Some(3)));
}

#[test]
fn cache_folder_may_be_moved() {
    let (folder, store) = store();
    keep(&store, "one", "content");
    let moved = Store { cache: folder.path().join("moved") };
    fs::rename(&store.cache, &moved.cache).unwrap();
    assert_eq!(fs::read_to_string(moved.folder("one").join("m.gguf")).unwrap(), "content");
    assert!(moved.unreferenced().unwrap().is_empty());
}

#[test]
fn plain_files_become_blobs_in_their_place() {
    let (_folder, store) = store();
    let folder = store.model("one").unwrap();
    let place = folder.join("m.gguf");
    fs::write(&place, "content").unwrap();
    let opened = folder.open_file("m.gguf").unwrap();
    let whole = VerifiedFile { folder: &folder, name: "m.gguf", file: &opened };
    store.insert(&file("content"), whole, &folder).unwrap();
    assert!(place.is_symlink() && fs::read_to_string(&place).unwrap() == "content");
}

#[test]
fn damaged_blob_is_not_linked() {
    let (_folder, store) = store();
    keep(&store, "one", "content");
    let blob = store.blob(&file("content").sha256);
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "CONTENT").unwrap();
    assert!(!store.link_existing(&file("content"), &store.model("one").unwrap()).unwrap());
    assert!(!blob.exists(), "and is gone");
    // A FIFO does not block it either.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &blob,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(!store.link_existing(&file("content"), &store.model("one").unwrap()).unwrap());
}

#[test]
fn unreferenced_blobs_are_listed_and_removed() {
    let (_folder, store) = store();
    keep(&store, "one", "content");
    keep(&store, "two", "other");
    // The state after a crash between renaming the blob and linking it.
    fs::remove_file(store.folder("two").join("m.gguf")).unwrap();
    assert_eq!(store.unreferenced().unwrap(), [store.blob(&file("other").sha256)]);
    let packed = store.cache.join("packed");
    fs::create_dir_all(&packed).unwrap();
    let sha256 = file("content").sha256;
    fs::write(packed.join(format!("{sha256}-v1.packed")), "packed").unwrap();
    fs::write(packed.join("hashes.json"), "{}").unwrap();
    assert_eq!(store.remove("one").unwrap(), Freed { files: 3, bytes: 7 + 5 + 6 });
    assert!(store.unreferenced().unwrap().is_empty());
    assert!(packed.join("hashes.json").exists());
}

#[test]
fn names_cannot_leave_the_folder() {
    let (folder, store) = store();
    fs::create_dir_all(store.folder("one")).unwrap();
    fs::write(folder.path().join("mine"), "").unwrap();
    for name in ["", ".", "..", "../..", "one/..", "/", "nowhere", "a\0b"] {
        let message = store.remove(name).unwrap_err().to_string();
        assert!(message.starts_with("no model `"), "{name}: {message}");
    }
    assert!(folder.path().join("mine").exists() && store.folder("one").exists());
}

#[test]
fn model_is_not_removed_during_its_pull() {
    let (_folder, store) = store();
    keep(&store, "one", "content");
    let pulling = File::create(store.folder("one").join(".pull.lock")).unwrap();
    pulling.try_lock().unwrap();
    let message = store.remove("one").unwrap_err().to_string();
    assert!(message.starts_with("an `infer pull` is running in"), "{message}");
}

#[test]
fn links_in_the_cache_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (folder, store) = store();
    let victim = folder.path().join("victim");
    fs::create_dir_all(victim.join("one")).unwrap();
    fs::write(victim.join("one/m.gguf"), "precious").unwrap();
    fs::write(victim.join("keys"), "precious").unwrap();
    fs::create_dir_all(store.cache.join(MODELS)).unwrap();
    fs::create_dir_all(store.cache.join(BLOBS)).unwrap();
    symlink(victim.join("one"), store.folder("one")).unwrap();
    symlink(victim.join("keys"), store.cache.join(BLOBS).join(LOCK)).unwrap();
    assert!(store.model("one").is_err() && store.list().unwrap().is_empty());
    assert!(store.remove("one").unwrap_err().to_string().starts_with("no model `one`"));
    let two = store.model("two").unwrap();
    let message = format!("{:#}", store.link_existing(&file("content"), &two).unwrap_err());
    assert!(message.ends_with(".lock`: it is a symbolic link, expected a regular file"), "{message}");
    // A link with the name of a pull's lock.
    symlink(victim.join("keys"), two.join(PULL_LOCK)).unwrap();
    assert!(store.remove("two").is_err());
    for name in [MODELS, BLOBS] {
        fs::rename(store.cache.join(name), store.cache.join(format!("{name}.old"))).unwrap();
        symlink(&victim, store.cache.join(name)).unwrap();
    }
    assert!(store.model("three").is_err() && store.list().is_err() && store.remove("one").is_err());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(victim.join("one/m.gguf")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(victim.join("keys")).unwrap(), "precious");
}
