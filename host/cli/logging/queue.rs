//! The queue to standard error: pushed to without blocking, written by a dedicated thread.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use infer_control::metrics::DROPPED_LOG_LINES;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::limits::{MAX_QUEUED_BYTES, MAX_QUEUED_LINES};

/// Maximum bytes per write when several lines wait.
const BATCH: usize = 32 << 10;

/// Pause after a write, in which further lines collect: each wake-up of the thread takes time from
/// the caller that pushes the line.
const COLLECT: Duration = Duration::from_millis(2);

/// Pause after a write that would block, as on a non-blocking terminal.
const PAUSE: Duration = Duration::from_millis(10);

/// The sending end. Pushing never blocks.
pub(super) struct Queue {
    lines: SyncSender<Box<[u8]>>,
    /// Bytes of lines that are queued or being written.
    bytes: Arc<AtomicUsize>,
    dropped: &'static AtomicU64,
}

impl Queue {
    /// Starts a queue whose thread writes to `out` for as long as the process lives.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Queue> {
        Queue::with(out, &DROPPED_LOG_LINES)
    }

    fn with(out: impl Write + Send + 'static, dropped: &'static AtomicU64) -> io::Result<Queue> {
        let (lines, waiting) = sync_channel(MAX_QUEUED_LINES);
        let bytes = Arc::<AtomicUsize>::default();
        let pending = bytes.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(out, &waiting, &pending, dropped))?;
        Ok(Queue { lines, bytes, dropped })
    }

    /// Queues one or more whole lines, or counts them as dropped if the queue is full.
    pub(super) fn push(&self, lines: &[u8]) {
        let pending = self.bytes.fetch_add(lines.len(), Ordering::AcqRel);
        if pending + lines.len() > MAX_QUEUED_BYTES || self.lines.try_send(lines.into()).is_err() {
            self.bytes.fetch_sub(lines.len(), Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was pushed is written, at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        while self.bytes.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn write(mut out: impl Write, waiting: &Receiver<Box<[u8]>>, pending: &AtomicUsize, dropped: &AtomicU64) {
    let mut batch = Vec::new();
    let mut known = dropped.load(Ordering::Relaxed);
    while let Ok(first) = waiting.recv() {
        batch.extend_from_slice(&first);
        while batch.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            batch.extend_from_slice(&next);
        }
        write_all(&mut out, &batch);
        pending.fetch_sub(batch.len(), Ordering::AcqRel);
        if batch.len() < BATCH {
            thread::sleep(COLLECT);
        }
        batch.clear();
        batch.shrink_to(2 * BATCH);
        let now = dropped.load(Ordering::Relaxed);
        if now != known {
            warn!(lines = now - known, "log lines were dropped: standard error was not read fast enough");
            known = now;
        }
    }
}

/// Writes all of `bytes`, or gives up if the reader is gone.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}

impl<'q> MakeWriter<'q> for &'static Queue {
    type Writer = Line;

    fn make_writer(&'q self) -> Line {
        Line(self)
    }
}

/// Writer for the subscriber, which writes a whole line per call.
pub(super) struct Line(&'static Queue);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A reader that takes its first bytes only once `resume` is dropped.
    struct StuckReader {
        resume: Sender<()>,
        taken: Receiver<Vec<u8>>,
    }

    struct StuckWriter {
        started: Sender<()>,
        resumed: Receiver<()>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for StuckWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.started.send(());
            let _ = self.resumed.recv();
            let _ = self.taken.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns a queue whose thread is stuck in writing `first`, so that it takes nothing else.
    fn stuck_queue(first: &[u8]) -> (Queue, StuckReader, &'static AtomicU64) {
        let (started, has_started) = channel();
        let (resume, resumed) = channel();
        let (sender, taken) = channel();
        let dropped = &*Box::leak(Box::<AtomicU64>::default());
        let queue = Queue::with(StuckWriter { started, resumed, taken: sender }, dropped).unwrap();
        queue.push(first);
        has_started.recv().unwrap();
        (queue, StuckReader { resume, taken }, dropped)
    }

    /// Lets the thread of `queue` write everything, and returns the number of bytes.
    fn written(queue: Queue, reader: StuckReader) -> usize {
        drop(reader.resume);
        drop(queue);
        reader.taken.iter().map(|bytes| bytes.len()).sum()
    }

    #[test]
    fn unread_log_drops_lines_and_counts_them() {
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let (queue, reader, dropped) = stuck_queue(&line);
        let capacity = MAX_QUEUED_BYTES / line.len();
        for _ in 1..3 * capacity {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(5));
        assert_eq!(queue.bytes.load(Ordering::Relaxed), capacity * line.len());
        assert_eq!(dropped.load(Ordering::Relaxed) as usize, 2 * capacity);
        assert_eq!(written(queue, reader), capacity * line.len(), "what was not dropped is written");
    }

    #[test]
    fn short_lines_are_bounded_in_number() {
        let (queue, reader, dropped) = stuck_queue(b"\n");
        for _ in 0..2 * MAX_QUEUED_LINES {
            queue.push(b"\n");
        }
        assert_eq!(dropped.load(Ordering::Relaxed) as usize, MAX_QUEUED_LINES);
        assert_eq!(written(queue, reader), 1 + MAX_QUEUED_LINES);
    }
}
