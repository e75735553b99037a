//! Search for ONNX Runtime's shared library by file name.

use std::path::{Path, PathBuf};

/// Libraries in `search`, which lists files and folders: the newest version first, then in the
/// order of `search`.
///
/// The version is taken from the file name after symbolic links are resolved:
/// `libonnxruntime.so.1.32.0`. A file that is listed itself may have any name.
pub(crate) fn candidates(search: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for place in search {
        let mut files = match std::fs::read_dir(place) {
            Ok(entries) => entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_file() && version(path).is_some())
                .collect(),
            Err(_) if place.is_file() => vec![place.clone()],
            Err(_) => Vec::new(),
        };
        files.sort();
        for file in files {
            // The usual `libonnxruntime.so` is a link to the versioned file beside it: count it
            // once.
            let file = file.canonicalize().unwrap_or(file);
            if !found.contains(&file) {
                found.push(file);
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(version(path)));
    found
}

/// Version numbers in a library's file name; `None` if it is not a name of ONNX Runtime.
fn version(path: &Path) -> Option<Vec<u32>> {
    let rest = path.file_name()?.to_str()?.strip_prefix("libonnxruntime.")?;
    let mut numbers = Vec::new();
    for part in rest.split('.').filter(|part| !matches!(*part, "so" | "dylib")) {
        numbers.push(part.parse().ok()?);
    }
    Some(numbers)
}

/// Version in a library's file name, as text.
pub(super) fn version_text(path: &Path) -> Option<String> {
    let numbers = version(path).filter(|numbers| !numbers.is_empty())?;
    Some(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        let cases: [(&str, Option<&[u32]>); 7] = [
            ("libonnxruntime.so.1.32.0", Some(&[1, 32, 0])),
            ("libonnxruntime.1.24.2.dylib", Some(&[1, 24, 2])),
            ("libonnxruntime.so", Some(&[])),
            ("libonnxruntime.so.1", Some(&[1])),
            ("libonnxruntime.so.1.32.0.orig", None),
            ("libonnxruntime_providers_shared.so", None),
            ("libz.so.1", None),
        ];
        for (name, expected) in cases {
            assert_eq!(version(Path::new(name)).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn newest_library_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime.so.1.24.1",
            "README",
            "mine.so",
        ] {
            std::fs::write(root.join(name), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("libonnxruntime.so.1.24.1", root.join("libonnxruntime.so")).unwrap();
        let search = [root.join("missing"), root.join("mine.so"), root.clone()];
        let names: Vec<_> =
            candidates(&search).iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect();
        let expected =
            ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.24.1", "libonnxruntime.so.1.9.0", "mine.so"];
        assert_eq!(names, expected.map(PathBuf::from));
    }
}
