//! An answer while it is written: held back, judged and sent.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use infer_config::{OnFlag, Windows};
use tokio::sync::mpsc::UnboundedReceiver;

use super::judge::{Flag, Judge, Origin};
use super::window::{Held, Piece, Step, Window};
use super::{Guard, Remark};
use crate::error::ApiError;

/// A step of an answer that the client may read.
#[derive(Debug)]
pub(crate) enum Sent<T> {
    /// A part of the answer.
    Piece(Piece<T>),
    /// The redaction, in the place of flagged text.
    Redaction(Remark),
    /// A remark on text that was sent.
    Annotation(Remark),
}

/// A window that is being judged.
struct Judging<'j> {
    flag: Pin<Box<dyn Future<Output = Result<Option<Flag>, ApiError>> + Send + 'j>>,
    window: Window,
}

/// The members of a piece beside its text, and the time at which it was written. `None` if the
/// piece has been sent.
type Unsent<T> = Option<(T, Instant)>;

/// Text that may be sent. A clean window releases many pieces at once: they are sent one by one, at
/// the pace of the model.
struct Outbox<'j, T, S> {
    pieces: VecDeque<Piece<Unsent<T>>>,
    judge: &'j Judge,
    send: S,
}

impl Guard {
    /// Reads an answer from `pieces` until its end, and gives to `send` what the client may read.
    /// Judges while further pieces are written. Returns the remark that ended the answer, if a flag
    /// did. A clean answer is a turn that was judged for `owner`.
    ///
    /// # Errors
    ///
    /// Those of the moderator, if they stop the answer, and of `send`.
    pub(crate) async fn pass<E, T: Send>(
        &self,
        pieces: &mut UnboundedReceiver<E>,
        mut read: impl FnMut(E) -> Piece<T>,
        mut send: impl FnMut(Sent<T>) -> Result<(), ApiError>,
        owner: &str,
        request: &infer_sandbox::Request,
    ) -> Result<Option<Remark>, ApiError> {
        let Some(judge) = &self.output else {
            while let Some(piece) = pieces.recv().await {
                send(Sent::Piece(read(piece)))?;
            }
            return Ok(None);
        };
        let annotates = self.config.on_flag == OnFlag::Annotate;
        let mut held: Held<Unsent<T>> = Held::new(match annotates {
            true => Windows { hold_back: 0, ..self.config.windows },
            false => self.config.windows,
        });
        let mut outbox = Outbox { pieces: VecDeque::new(), judge, send };
        let mut judging: Option<Judging<'_>> = None;
        let (mut is_open, mut is_redacted, mut is_clean) = (true, false, true);
        let mut answer = String::new();
        let mut noted: Option<Remark> = None;
        loop {
            if judging.is_none() {
                match held.step() {
                    Step::Judge(window) => judging = Some(judge.begin(window, request)),
                    Step::Finish(rest) => {
                        outbox.pieces.extend(rest);
                        outbox.flush()?;
                        if is_clean {
                            self.remember(owner, &answer);
                        }
                        return Ok(None);
                    }
                    Step::Wait => {}
                }
            }
            // Of the two, at least one is awaited: the step of a complete answer is never to wait.
            tokio::select! {
                piece = pieces.recv(), if is_open => {
                    let Some(Piece { text, tokens, extra }) = piece.map(&mut read) else {
                        is_open = false;
                        held.complete();
                        continue;
                    };
                    answer += &text;
                    if annotates {
                        (outbox.send)(Sent::Piece(Piece { text: text.clone(), tokens, extra }))?;
                        held.push(Piece { text, tokens, extra: None });
                    } else {
                        held.push(Piece { text, tokens, extra: Some((extra, Instant::now())) });
                        outbox.pace(self.config.windows.stride)?;
                    }
                },
                (flag, window) = Judging::end(&mut judging), if judging.is_some() => {
                    let Some(flag) = flag? else {
                        noted = None;
                        let released = held.release(&window);
                        is_redacted &= released.is_empty();
                        outbox.pieces.extend(released);
                        outbox.pace(self.config.windows.stride)?;
                        continue;
                    };
                    is_clean = false;
                    let remark = self.remark(flag);
                    outbox.flush()?;
                    match self.config.on_flag {
                        OnFlag::Block | OnFlag::Stop => return Ok(Some(remark)),
                        OnFlag::Redact => {
                            held.remove(&window);
                            // One redaction stands for all text that is removed without a pause.
                            if !std::mem::replace(&mut is_redacted, true) {
                                (outbox.send)(Sent::Redaction(remark))?;
                            }
                        }
                        OnFlag::Annotate => {
                            held.release(&window);
                            // Overlapping windows have one remark.
                            if noted.as_ref() != Some(&remark) {
                                (outbox.send)(Sent::Annotation(remark.clone()))?;
                            }
                            noted = Some(remark);
                        }
                    }
                }
            }
        }
    }
}

impl<T, S: FnMut(Sent<T>) -> Result<(), ApiError>> Outbox<'_, T, S> {
    /// Sends as many pieces as must be sent with each new one, so that all are sent within
    /// `stride`.
    fn pace(&mut self, stride: usize) -> Result<(), ApiError> {
        (0..self.pieces.len().div_ceil(stride)).try_for_each(|_| self.next())
    }

    /// Sends all pieces.
    fn flush(&mut self) -> Result<(), ApiError> {
        while !self.pieces.is_empty() {
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), ApiError> {
        let Some(Piece { text, tokens, extra: Some((extra, written)) }) = self.pieces.pop_front() else {
            return Ok(());
        };
        self.judge.moderator.calls.held(tokens, written.elapsed());
        (self.send)(Sent::Piece(Piece { text, tokens, extra }))
    }
}

impl Judge {
    fn begin<'j>(&'j self, window: Window, request: &'j infer_sandbox::Request) -> Judging<'j> {
        Judging { flag: Box::pin(self.flag(window.text.clone(), Origin::Turn, request)), window }
    }
}

impl<'j> Judging<'j> {
    /// Waits for the verdict on the window that is being judged. May be dropped and called again.
    async fn end(judging: &mut Option<Judging<'j>>) -> (Result<Option<Flag>, ApiError>, Window) {
        let flag = match judging {
            Some(judging) => judging.flag.as_mut().await,
            None => std::future::pending().await,
        };
        let window = judging.take().map(|judging| judging.window);
        (flag, window.unwrap_or_default())
    }
}
