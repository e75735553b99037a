//! The part of an answer that is held back until a moderator has judged it.
//!
//! Each window contains everything that was not released, and text is released only once a window
//! was clean that contains it and at least `hold_back` further tokens. So if a phrase of at most
//! `hold_back` tokens flags every window that contains it, no byte of it is released.

use std::collections::VecDeque;

use infer_config::Windows;

/// An indivisible part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<T> {
    pub(crate) text: String,
    /// Tokens that it took to write it.
    pub(crate) tokens: usize,
    /// Members of its event beside the text.
    pub(crate) extra: T,
}

/// Text to be judged.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) text: String,
    /// Number of held pieces in it, from the first.
    pieces: usize,
}

/// The next step for the part that is held back.
#[derive(Debug)]
pub(super) enum Step<T> {
    Judge(Window),
    /// The answer is complete, and this is the rest of it.
    Finish(Vec<Piece<T>>),
    /// More text is needed.
    Wait,
}

/// The end of an answer, as it is written.
pub(super) struct Held<T> {
    windows: Windows,
    /// Texts before `pieces`, with their tokens: the beginning of each window.
    context: VecDeque<(String, usize)>,
    pieces: VecDeque<Piece<T>>,
    /// Number of `pieces` that a clean window contained.
    clean: usize,
    is_complete: bool,
}

impl<T> Held<T> {
    pub(super) fn new(windows: Windows) -> Self {
        Held { windows, context: VecDeque::new(), pieces: VecDeque::new(), clean: 0, is_complete: false }
    }

    /// Adds the next piece of the answer.
    pub(super) fn push(&mut self, piece: Piece<T>) {
        self.pieces.push_back(piece);
    }

    /// Marks the answer as complete.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Tokens that are held back.
    pub(super) fn tokens(&self) -> usize {
        self.pieces.iter().map(|piece| piece.tokens).sum()
    }

    /// Returns the next step, while no window is being judged.
    pub(super) fn step(&mut self) -> Step<T> {
        let new = self.pieces.range(self.clean..);
        let is_due = match self.is_complete {
            true => new.len() > 0,
            false => new.map(|piece| piece.tokens).sum::<usize>() >= self.windows.stride,
        };
        if is_due {
            let texts = self.context.iter().map(|(text, _)| text);
            let text = texts.chain(self.pieces.iter().map(|piece| &piece.text));
            return Step::Judge(Window {
                text: text.map(String::as_str).collect(),
                pieces: self.pieces.len(),
            });
        }
        match self.is_complete {
            true => Step::Finish(self.pieces.drain(..).collect()),
            false => Step::Wait,
        }
    }

    /// Releases what the clean `window` allows to be sent.
    pub(super) fn release(&mut self, window: &Window) -> Vec<Piece<T>> {
        let mut behind: usize = self.pieces.range(..window.pieces).map(|piece| piece.tokens).sum();
        let mut released = Vec::new();
        while released.len() < window.pieces {
            let Some(first) = self.pieces.front() else { break };
            behind -= first.tokens;
            if behind < self.windows.hold_back {
                break;
            }
            let piece = self.pieces.pop_front();
            released
                .extend(piece.inspect(|piece| self.context.push_back((piece.text.clone(), piece.tokens))));
        }
        self.clean = window.pieces - released.len();
        let new = self.tokens() + self.windows.stride;
        self.keep_context(self.windows.window.saturating_sub(new));
        released
    }

    /// Removes what the flagged `window` contains. The next windows begin with the end of it, so
    /// that a phrase of which only the beginning was removed flags them, too.
    pub(super) fn remove(&mut self, window: &Window) {
        let removed = self.pieces.drain(..window.pieces).map(|piece| (piece.text, piece.tokens));
        self.context.extend(removed);
        self.clean = 0;
        self.keep_context(self.windows.hold_back);
    }

    /// Forgets whole texts before the last `tokens` of the context.
    fn keep_context(&mut self, tokens: usize) {
        let mut kept: usize = self.context.iter().map(|(_, tokens)| tokens).sum();
        while let Some((_, first)) = self.context.front()
            && kept - first >= tokens
        {
            kept -= first;
            self.context.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const WINDOWS: Windows = Windows { hold_back: 12, stride: 4, window: 40 };
    const FILLER: [&str; 8] = ["a", "ß", " ", "語", "be", "\n", "🙂", "cde"];

    /// A stream of random pieces with a phrase in it.
    #[derive(Debug)]
    struct Stream {
        pieces: Vec<Piece<()>>,
        phrase: String,
    }

    /// Plants a phrase of at most `hold_back` tokens, with unique characters, in a random stream.
    /// Tokens are joined to pieces at random, as for stop strings.
    fn stream(random: &mut Rng) -> Stream {
        let length = random.usize(1..=WINDOWS.hold_back);
        let phrase: Vec<String> =
            (0..length).map(|_| char::from_u32(0x2460 + random.u32(..80)).unwrap().to_string()).collect();
        let filler = |random: &mut Rng, count: usize| {
            (0..count).map(|_| random.choice(FILLER).unwrap().to_owned()).collect::<Vec<_>>()
        };
        let before = random.usize(..80);
        let mut tokens = filler(random, before);
        tokens.extend(phrase.iter().cloned());
        let after = random.usize(..80);
        tokens.extend(filler(random, after));
        let mut pieces: Vec<Piece<()>> = Vec::new();
        for token in tokens {
            match pieces.last_mut() {
                Some(last) if random.u8(..8) == 0 => {
                    last.text += &token;
                    last.tokens += 1;
                }
                _ => pieces.push(Piece { text: token, tokens: 1, extra: () }),
            }
        }
        Stream { pieces, phrase: phrase.concat() }
    }

    /// Streams `stream`, with verdicts that arrive after a random number of further pieces. Returns
    /// what was sent, and whether anything was flagged.
    fn sent(random: &mut Rng, stream: &Stream, redacts: bool) -> (String, bool) {
        let mut held = Held::new(WINDOWS);
        let (mut sent, mut is_flagged) = (String::new(), false);
        let mut pieces = stream.pieces.iter().cloned();
        let lag = random.usize(..30);
        let mut judging: Option<(Window, usize)> = None;
        loop {
            match pieces.next() {
                Some(piece) => held.push(piece),
                None => held.complete(),
            }
            judging = match judging {
                Some((window, wait)) if wait > 0 && !held.is_complete => Some((window, wait - 1)),
                Some((window, _)) if window.text.contains(&stream.phrase) => {
                    is_flagged = true;
                    if !redacts {
                        return (sent, true);
                    }
                    held.remove(&window);
                    None
                }
                Some((window, _)) => {
                    sent.extend(held.release(&window).into_iter().map(|piece| piece.text));
                    None
                }
                None => None,
            };
            if judging.is_none() {
                match held.step() {
                    Step::Judge(window) => judging = Some((window, random.usize(..=lag))),
                    Step::Finish(rest) => {
                        sent.extend(rest.into_iter().map(|piece| piece.text));
                        return (sent, is_flagged);
                    }
                    Step::Wait => {}
                }
            }
        }
    }

    /// Bytes of the phrase that were sent. The rest of a stream has none of its characters.
    fn leaked(sent: &str, phrase: &str) -> usize {
        sent.chars().filter(|letter| phrase.contains(*letter)).map(char::len_utf8).sum()
    }

    #[test]
    fn planted_phrases_never_leak() {
        let mut random = Rng::with_seed(7);
        let mut largest = 0;
        for _ in 0..10_000 {
            let stream = stream(&mut random);
            for redacts in [false, true] {
                let (sent, is_flagged) = sent(&mut random, &stream, redacts);
                assert!(is_flagged, "{stream:?}");
                largest = largest.max(leaked(&sent, &stream.phrase));
            }
        }
        println!("largest leak of 10,000 streams: {largest} bytes; hold_back {} tokens", WINDOWS.hold_back);
        assert_eq!(largest, 0);
    }

    #[test]
    fn clean_streams_are_sent_whole_and_soon() {
        let mut random = Rng::with_seed(11);
        for _ in 0..1_000 {
            let Stream { pieces, .. } = stream(&mut random);
            let clean = Stream { pieces, phrase: "never".to_owned() };
            let (sent, is_flagged) = sent(&mut random, &clean, false);
            assert!(!is_flagged);
            assert_eq!(sent, clean.pieces.iter().map(|piece| piece.text.as_str()).collect::<String>());
        }
        // With verdicts at once, at most `hold_back + stride - 1` tokens are held.
        let mut held = Held::new(WINDOWS);
        for _ in 0..100 {
            held.push(Piece { text: "a".to_owned(), tokens: 1, extra: () });
            if let Step::Judge(window) = held.step() {
                held.release(&window);
            }
            assert!(held.tokens() < WINDOWS.hold_back + WINDOWS.stride);
        }
    }

    #[test]
    fn windows_overlap_by_their_context() {
        let mut held = Held::new(WINDOWS);
        let mut windows = Vec::new();
        for index in 0..100_u8 {
            held.push(Piece { text: char::from(b'0' + index % 10).to_string(), tokens: 1, extra: () });
            if let Step::Judge(window) = held.step() {
                held.release(&window);
                windows.push(window.text);
            }
        }
        assert_eq!(windows[0], "0123");
        assert_eq!(windows[12].len(), WINDOWS.window);
        assert!(
            windows.windows(2).all(|pair| pair[1].contains(&pair[0][pair[0].len().saturating_sub(36)..]))
        );
    }
}
