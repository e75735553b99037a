//! Lines of a JSON Lines file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use infer_engine::files;

use crate::limits::MAX_LINE_BYTES;

/// Reads a file line by line, each of at most 1 MiB.
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: String,
    number: usize,
}

impl Lines {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(path: &Path) -> std::io::Result<Lines> {
        let reader = BufReader::new(files::open(path)?);
        Ok(Lines { path: path.to_owned(), reader, line: String::new(), number: 0 })
    }

    /// Reads the next line: its number, from 1, and its text with the line break. `None` at the end
    /// of the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is not UTF-8, or is too long; the message begins with file and number.
    pub fn next_line(&mut self) -> anyhow::Result<Option<(usize, &str)>> {
        self.line.clear();
        self.number += 1;
        let (name, number) = (self.path.display(), self.number);
        let bytes = self
            .reader
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_line(&mut self.line)
            .with_context(|| format!("{name}:{number}: not a line of UTF-8 text"))?;
        ensure!(
            (bytes as u64) < MAX_LINE_BYTES,
            "{name}:{number}: longer than {MAX_LINE_BYTES} bytes; expected one JSON object per line"
        );
        Ok((bytes > 0).then_some((number, &self.line)))
    }
}
