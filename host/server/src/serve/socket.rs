//! The file of the Unix socket. Its folder may be writable by others, so the socket is created in a
//! private folder inside it and linked to its name from there. Thus nothing is removed, made
//! accessible to the group, or replaced through a symbolic link.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::files::Folder;
use rustix::fs::{AtFlags, Mode, chmodat};
use tokio::net::{UnixListener, UnixStream};

/// Permissions: read and write for owner and group.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);

/// Name of the socket in the private folder.
const NAME: &str = "s";

/// The file of the socket, removed when the server stops.
pub(super) struct SocketFile {
    folder: Folder,
    name: OsString,
    /// Device and inode: by then the file may belong to another server.
    identity: (u64, u64),
}

/// Binds a socket at `path`, replacing a stale one.
///
/// # Errors
///
/// If another server listens there, another file has that name, or the folder is not writable.
pub(super) async fn bind(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let shown = path.display();
    let context =
        || format!("cannot listen on `{shown}`; expected a `unix_socket` in a folder that can be written");
    let (folder, name) = Folder::of(path).with_context(context)?;
    match folder.status(&name).with_context(context)? {
        Some(found) if found.is_socket() => {
            if UnixStream::connect(within(&folder).join(&name)).await.is_ok() {
                bail!(
                    "cannot listen on `{shown}`: another server uses it; choose another `unix_socket` under [server]"
                );
            }
            folder.remove_file(&name).with_context(|| format!("cannot remove the stale socket `{shown}`"))?;
        }
        Some(_) => bail!(
            "cannot listen on `{shown}`: it exists and is not a socket; choose another `unix_socket` under [server]"
        ),
        None => {}
    }
    let (inner_name, inner) = folder.new_folder(".infer-").with_context(context)?;
    let made = make(&inner, &folder, &name);
    let _ = folder.remove_all(&inner_name);
    let (listener, identity) = made.with_context(context)?;
    Ok((listener, SocketFile { folder, name, identity }))
}

/// Creates a socket in the private folder `inner`, and links it into `folder` as `name`.
fn make(inner: &Folder, folder: &Folder, name: &OsString) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(within(inner).join(NAME))?;
    // Only this process can create links in that folder.
    chmodat(inner, NAME, MODE, AtFlags::empty())?;
    let found = inner.status(NAME)?.ok_or(io::ErrorKind::NotFound)?;
    inner.link_to(NAME, folder, name)?;
    Ok((listener, found.identity))
}

/// A path to `folder`: by its descriptor, because socket paths have a short limit, or its own path
/// without /proc.
fn within(folder: &Folder) -> PathBuf {
    let by_descriptor = Path::new("/proc/self/fd").join(folder.as_fd().as_raw_fd().to_string());
    if by_descriptor.is_dir() { by_descriptor } else { folder.path().to_owned() }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = self.folder.status(&self.name);
        if now.is_ok_and(|now| now.is_some_and(|now| now.identity == self.identity)) {
            let _ = self.folder.remove_file(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[tokio::test]
    async fn socket_is_not_created_through_symlink() {
        let scratch = tempfile::tempdir().unwrap();
        // Longer than the limit of a socket path.
        let parent = scratch.path().join("long".repeat(30));
        fs::create_dir(&parent).unwrap();
        let victim = scratch.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let mode = fs::metadata(&victim).unwrap().mode();
        let path = parent.join("s");
        symlink(&victim, &path).unwrap();
        let error = format!("{:#}", bind(&path).await.err().unwrap());
        assert!(error.contains("it exists and is not a socket"), "{error}");
        fs::remove_file(&path).unwrap();
        let (_listener, file) = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        // The name belongs to another file when the server stops.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(
            (fs::read_to_string(&victim).unwrap().as_str(), fs::metadata(&victim).unwrap().mode()),
            ("precious", mode)
        );
    }
}
