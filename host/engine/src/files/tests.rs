//! Every type of file in place of a regular one, and links in managed folders.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

use super::*;

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

fn message<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn non_regular_files_are_rejected_unread() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fifo(&place("fifo"));
    let _socket = UnixListener::bind(place("socket")).unwrap();
    fs::create_dir(place("inner")).unwrap();
    symlink("/dev/zero", place("device")).unwrap();
    symlink("fifo", place("link")).unwrap();
    let folder = Folder::open(scratch.path()).unwrap();
    let cases = [
        ("fifo", "a FIFO", "a FIFO"),
        ("socket", "a socket", "a socket"),
        ("inner", "a folder", "a folder"),
        ("device", "a device", "a symbolic link"),
        ("link", "a FIFO", "a symbolic link"),
    ];
    for (name, followed, itself) in cases {
        let expected = format!("it is {followed}, expected a regular file");
        assert_eq!(message(open(place(name))), expected);
        assert_eq!(message(read(place(name), 10)), expected);
        let expected = format!("it is {itself}, expected a regular file");
        assert_eq!(message(folder.open_file(name)), expected);
        assert_eq!(message(folder.read(name, 10)), expected);
        assert_eq!(message(folder.lock_file(name)), expected);
    }
}

#[test]
fn reading_stops_at_the_limit() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    fs::write(&path, "12345").unwrap();
    assert_eq!(read(&path, 5).unwrap(), b"12345");
    assert_eq!(message(read(&path, 4)), "it is larger than 4 bytes");
    // The system reports a size of 0 for this file.
    assert_eq!(message(read("/proc/self/status", 4)), "it is larger than 4 bytes");
    fs::write(&path, b"12\xff").unwrap();
    assert_eq!(message(read_to_string(&path, 5)), "it is not UTF-8 at byte 2");
}

#[test]
fn operator_links_are_followed() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("file"), "text").unwrap();
    symlink("file", scratch.path().join("link")).unwrap();
    assert_eq!(read_to_string(scratch.path().join("link"), 10).unwrap(), "text");
}

#[test]
fn nothing_is_written_through_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir_all(place("victim/inner")).unwrap();
    fs::write(place("victim/file"), "precious").unwrap();
    let folder = Folder::create(place("ours")).unwrap();
    for (link, target) in [("lock", "../victim/file"), ("new", "../victim/new"), ("dir", "../victim")] {
        symlink(target, place("ours").join(link)).unwrap();
    }
    let link = "it is a symbolic link, expected a regular file";
    assert_eq!(message(folder.lock_file("lock")), link);
    assert_eq!(message(folder.lock_file("new")), link);
    assert_eq!(folder.create_file("new", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(message(folder.open_to_write("lock")), link);
    let link = "it is a symbolic link, expected a folder";
    assert_eq!(message(folder.create_folder("dir")), link);
    assert_eq!(message(Folder::create(place("ours/dir"))), link);
    assert_eq!(message(Folder::existing(place("ours/dir"))), link);

    folder.replace("lock", b"ours", 0o600).unwrap();
    folder.replace_with_link("new", Path::new("lock")).unwrap();
    folder.remove_all("dir").unwrap();
    assert_eq!(fs::read_to_string(place("victim/file")).unwrap(), "precious");
    assert_eq!(fs::read_dir(place("victim")).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(place("ours/new")).unwrap(), "ours");
    let mut names = folder.names().unwrap();
    names.sort();
    assert_eq!(names, ["lock", "new"]);
}

#[test]
fn hard_link_is_not_written_through() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir(place("ours")).unwrap();
    fs::write(place("victim"), "precious").unwrap();
    fs::hard_link(place("victim"), place("ours/file")).unwrap();
    let folder = Folder::open(place("ours")).unwrap();
    assert_eq!(message(folder.open_to_write("file")), "it has 2 names, expected one");
    {
        use std::io::Write as _;
        folder.open_or_create("file", 0o600).unwrap().write_all(b"ours").unwrap();
    }
    assert_eq!(fs::read_to_string(place("victim")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(place("ours/file")).unwrap(), "ours");
    // A file of our own is opened unchanged.
    assert_eq!(folder.open_or_create("file", 0o600).unwrap().metadata().unwrap().len(), 4);
}

#[test]
fn removal_does_not_follow_links() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir_all(place("ours/a/b/c")).unwrap();
    fs::create_dir(place("victim")).unwrap();
    fs::write(place("victim/file"), "precious").unwrap();
    fs::write(place("ours/a/file"), "").unwrap();
    symlink(place("victim"), place("ours/a/b/link")).unwrap();
    symlink(place("victim/file"), place("ours/a/b/file")).unwrap();
    fifo(&place("ours/a/fifo"));
    let folder = Folder::open(place("ours")).unwrap();
    folder.remove_all("a").unwrap();
    folder.remove_all("a").unwrap();
    assert_eq!(folder.names().unwrap().len(), 0);
    assert_eq!(fs::read_to_string(place("victim/file")).unwrap(), "precious");

    let deep = (0..40).fold(place("ours"), |path, _| path.join("d"));
    fs::create_dir_all(deep).unwrap();
    assert!(message(folder.remove_all("d")).contains("nested too deep"));
}

#[test]
fn folder_keeps_its_descriptor_after_rename() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir(place("victim")).unwrap();
    let folder = Folder::create(place("ours")).unwrap();
    fs::rename(place("ours"), place("moved")).unwrap();
    symlink("victim", place("ours")).unwrap();
    folder.replace("file", b"ours", 0o600).unwrap();
    assert_eq!(fs::read_to_string(place("moved/file")).unwrap(), "ours");
    assert_eq!(fs::read_dir(place("victim")).unwrap().count(), 0);
}

#[test]
fn names_cannot_leave_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::open(scratch.path()).unwrap();
    for name in ["", ".", "..", "/etc", "../x", "a/b", "a/"] {
        assert_eq!(
            folder.create_file(name, 0o600).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{name}"
        );
        assert_eq!(folder.remove_all(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        assert_eq!(folder.folder(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn replacement_is_atomic() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::open(scratch.path()).unwrap();
    folder.replace("file", b"one", 0o600).unwrap();
    let found = fs::metadata(scratch.path().join("file")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    {
        use std::io::Write as _;
        let mut partial = folder.temporary("file", 0o600).unwrap();
        partial.write_all(b"tw").unwrap();
    }
    assert_eq!(folder.read("file", 10).unwrap(), b"one");
    let new = folder.temporary("file", 0o600).unwrap();
    assert_eq!(new.persist_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    folder.temporary("other", 0o600).unwrap().persist_new().unwrap();
    let mut names = folder.names().unwrap();
    names.sort();
    assert_eq!(names, ["file", "other"]);
    assert_eq!(folder.bytes(1).unwrap(), 3);
}
