//! The forward pass, as the scheduler calls it: by the decoder, or by the stand-in of a simulation.

use super::decoder::{Decoder, Run};

pub(super) trait Forward {
    /// Maximum tokens of a sequence.
    fn context(&self) -> usize;

    fn vocabulary(&self) -> usize;

    /// See [`Decoder::forward`].
    fn forward(&mut self, runs: &mut [Run<'_>]);

    /// See [`Decoder::logits`].
    fn logits(&mut self, first: usize, rows: usize) -> &mut [f32];
}

impl Forward for Decoder {
    fn context(&self) -> usize {
        self.config().context
    }

    fn vocabulary(&self) -> usize {
        Decoder::vocabulary(self)
    }

    fn forward(&mut self, runs: &mut [Run<'_>]) {
        Decoder::forward(self, runs);
    }

    fn logits(&mut self, first: usize, rows: usize) -> &mut [f32] {
        Decoder::logits(self, first, rows)
    }
}
