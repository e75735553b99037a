//! Server-sent events from bytes, as the WHATWG's HTML standard defines them (section 9.2.6). Only
//! their data counts: comments, names and ids are dropped.

use bytes::{Buf as _, Bytes};

/// Reads events from bytes that arrive in parts of any size.
pub(crate) struct EventReader {
    /// Bytes that were not read yet.
    pending: Bytes,
    /// The line so far.
    line: Vec<u8>,
    /// Data of the event so far; `None` before its first line of data.
    data: Option<Vec<u8>>,
    /// True after a carriage return: a line feed then ends the same line.
    after_return: bool,
    /// True before the first line, which may begin with a byte order mark.
    is_first: bool,
    max_bytes: usize,
}

/// An event is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl EventReader {
    /// A reader of events of at most `max_bytes` bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        EventReader {
            pending: Bytes::new(),
            line: Vec::new(),
            data: None,
            after_return: false,
            is_first: true,
            max_bytes,
        }
    }

    /// Adds bytes, once [`EventReader::next`] has returned all events of the previous ones.
    pub(crate) fn add(&mut self, bytes: Bytes) {
        self.pending = bytes;
    }

    /// Maximum size of an event, in bytes.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Number of bytes that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.pending.len() + self.line.len() + self.data.as_ref().map_or(0, Vec::len)
    }

    /// Returns the data of the next event, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// If the event is too large.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLarge> {
        loop {
            if self.after_return && !self.pending.is_empty() {
                self.after_return = false;
                if self.pending[0] == b'\n' {
                    self.pending.advance(1);
                }
            }
            let Some(end) = self.pending.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                let rest = std::mem::take(&mut self.pending);
                self.extend(&rest)?;
                return Ok(None);
            };
            let line = self.pending.split_to(end + 1);
            self.after_return = line[end] == b'\r';
            self.extend(&line[..end])?;
            if let Some(event) = self.end_line() {
                return Ok(Some(event));
            }
        }
    }

    /// Returns the data of a last event without a blank line after it.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.data.take()
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let data = self.data.as_ref().map_or(0, Vec::len);
        if bytes.len() > self.max_bytes.saturating_sub(self.line.len() + data) {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads a whole line, and returns the data of the event that it ends.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.data.take().filter(|data| !data.is_empty());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        if field == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of parts that end at `cuts`.
    fn events(text: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut reader = EventReader::new(1_000);
        let mut found = Vec::new();
        let mut begin = 0;
        for &end in cuts.iter().chain([&text.len()]) {
            reader.add(Bytes::copy_from_slice(&text[begin..end]));
            while let Some(event) = reader.next().unwrap() {
                found.push(event);
            }
            begin = end;
        }
        (found, reader.finish())
    }

    #[test]
    fn events_are_the_same_split_at_every_offset() {
        type Case = (&'static [u8], &'static [&'static [u8]], Option<&'static [u8]>);
        let cases: [Case; 9] = [
            (b"data: {\"a\":1}\n\ndata: [DONE]\n\n", &[b"{\"a\":1}", b"[DONE]"], None),
            (b"data: a\r\n\r\ndata: b\r\n\r\n", &[b"a", b"b"], None),
            (b"data: a\r\rdata:b\r\r", &[b"a", b"b"], None),
            (b"data: a\ndata: b\r\ndata\n\n", &[b"a\nb\n"], None),
            (b": comment\n\nevent: x\nid: 7\nretry: 1\ndata:  a\n\n", &[b" a"], None),
            (b"\xef\xbb\xbfdata: a\n\n\n\n\xef\xbb\xbfdata: b\n\n", &[b"a"], None),
            (b"data: \xc3\xa9\xf0\x9f\x98\x80\n\n", &[b"\xc3\xa9\xf0\x9f\x98\x80"], None),
            (b"data: a\n\ndata: [DONE]", &[b"a"], Some(b"[DONE]")),
            (b"database: a\n\ndata: \n\n:\n", &[], None),
        ];
        for (text, expected, rest) in cases {
            let expected: Vec<_> = expected.iter().map(|event| event.to_vec()).collect();
            let expected = (expected, rest.map(<[u8]>::to_vec));
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let found = events(text, &[first, second]);
                    assert_eq!(found, expected, "{} at {first}, {second}", String::from_utf8_lossy(text));
                }
            }
            let all: Vec<_> = (0..text.len()).collect();
            assert_eq!(events(text, &all), expected, "byte by byte");
        }
    }

    #[test]
    fn large_events_are_rejected_and_memory_bounded() {
        let part = Bytes::from(vec![b'x'; 64]);
        let mut reader = EventReader::new(1_000);
        let rejected = (0..).find(|_| {
            reader.add(part.clone());
            let result = reader.next();
            assert!(reader.held_bytes() <= 1_064);
            result == Err(TooLarge)
        });
        assert_eq!(rejected, Some(15));
        // Many lines of one event count together.
        let mut reader = EventReader::new(100);
        let lines = b"data: 0123456789\n".repeat(20);
        reader.add(lines.into());
        assert_eq!(reader.next(), Err(TooLarge));
    }
}
