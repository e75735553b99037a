//! Limits of a download: bytes on the disk, free space, and minimum speed.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::HumanBytes;
use infer_engine::files;

use crate::limits::{MIN_BYTES_PER_SILENCE, MIN_FREE_BYTES};

/// Bytes that are written between two checks of the free space.
const LOOK_BYTES: u64 = 8 << 20;

/// A file with a maximum size.
pub(super) struct Growth {
    file: File,
    bytes: u64,
    max_bytes: u64,
    looked_at: u64,
}

impl Growth {
    /// Truncates `file` to its first `bytes` bytes, from which it may grow to `max_bytes` bytes.
    pub(super) fn new(mut file: File, bytes: u64, max_bytes: u64) -> io::Result<Self> {
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Growth { file, bytes, max_bytes, looked_at: bytes })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may still be written.
    pub(super) fn room(&self) -> u64 {
        self.max_bytes - self.bytes
    }

    /// Truncates the file to zero bytes.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.bytes, self.looked_at) = (0, 0);
        Ok(())
    }
}

impl Write for Growth {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.room() {
            let message = format!("received more than the expected {} bytes", self.max_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        if self.bytes - self.looked_at >= LOOK_BYTES {
            enough(files::free_bytes(&self.file)?)?;
            self.looked_at = self.bytes;
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Checks that `free` bytes cover the reserve.
pub(super) fn enough(free: u64) -> io::Result<()> {
    if free >= MIN_FREE_BYTES {
        return Ok(());
    }
    let message = format!(
        "the disk has {} free, and {} must stay free; free some space, then pull again to resume",
        HumanBytes(free),
        HumanBytes(MIN_FREE_BYTES)
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

/// Minimum speed of a source: fails on silence and on a trickle, not on a slow connection.
pub(super) struct Pace {
    /// Length of the interval that is measured.
    silence: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(silence: Duration, now: Instant) -> Self {
        Pace { silence, since: now, bytes: 0 }
    }

    /// Counts `bytes` that arrived by `now`. Fails if an interval had too few.
    pub(super) fn record(&mut self, bytes: u64, now: Instant) -> anyhow::Result<()> {
        self.bytes += bytes;
        if now.duration_since(self.since) >= self.silence {
            match self.bytes {
                0 => bail!("{}", silent(self.silence)),
                few @ ..MIN_BYTES_PER_SILENCE => {
                    bail!("received only {few} bytes in {} seconds", self.silence.as_secs())
                }
                _ => *self = Pace::new(self.silence, now),
            }
        }
        Ok(())
    }
}

pub(super) fn silent(silence: Duration) -> String {
    format!("received no data for {} seconds", silence.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_SILENCE;

    #[test]
    fn file_grows_to_its_limit() {
        let mut growth = Growth::new(tempfile::tempfile().unwrap(), 0, 10).unwrap();
        growth.write_all(b"12345678").unwrap();
        let error = growth.write_all(b"90-").unwrap_err();
        assert_eq!(error.to_string(), "received more than the expected 10 bytes");
        assert_eq!(growth.file().metadata().unwrap().len(), 8);
        growth.write_all(b"90").unwrap();
        assert_eq!(growth.room(), 0);
        growth.clear().unwrap();
        assert_eq!((growth.bytes(), growth.file().metadata().unwrap().len()), (0, 0));
        let cut = Growth::new(growth.into_file(), 4, 10).unwrap();
        assert_eq!(cut.file().metadata().unwrap().len(), 4);
    }

    #[test]
    fn full_disk_ends_a_download() {
        assert!(enough(MIN_FREE_BYTES).is_ok());
        assert!(enough(MIN_FREE_BYTES - 1).unwrap_err().to_string().contains("free some space"));
    }

    #[test]
    fn only_trickling_sources_are_abandoned() {
        let start = Instant::now();
        let mut pace = Pace::new(MAX_SILENCE, start);
        for minute in 1..5 {
            pace.record(MIN_BYTES_PER_SILENCE, start + MAX_SILENCE * minute).unwrap();
        }
        let message = pace.record(1, start + MAX_SILENCE * 5).unwrap_err().to_string();
        assert_eq!(message, "received only 1 bytes in 60 seconds");
        let mut pace = Pace::new(MAX_SILENCE, start);
        assert_eq!(
            pace.record(0, start + MAX_SILENCE).unwrap_err().to_string(),
            "received no data for 60 seconds"
        );
    }
}
