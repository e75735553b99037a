//! Output of a product: moves sums from a task's memory to the caller's buffer.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use std::ops::Range;

use crate::layout::PANEL;
use crate::norm::{Activation, gated_product};
use crate::simd::{Job, Simd};

/// Effect of a product on the content of `out`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Write {
    /// `out = W · input`
    Set,
    /// `out += factor * (W · input)`, for residual connections, whose factor is 1 in most models.
    Add(f32),
    /// `out = activation(out) * (W · input)`, where `out` holds the output of the gate.
    Gate(Activation),
}

/// Destination of results: row `r` of the input and row `n` of the matrix go to `out[r * stride +
/// n]`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) out: *mut f32,
    pub(crate) stride: usize,
    /// Number of rows of the matrix.
    pub(crate) rows: usize,
    pub(crate) write: Write,
}

/// Moves sums, `[token][row of the panel]`, to the output.
///
/// # Safety
/// As for [`panels`](super::panels).
pub(super) struct Finish {
    pub(super) sums: *const f32,
    pub(super) tokens: Range<usize>,
    pub(super) panel: usize,
    pub(super) target: Target,
}

impl<S: Simd> Job<S> for Finish {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { sums, tokens, panel, target } = self;
        let first = panel * PANEL;
        let rows = PANEL.min(target.rows - first);
        for (i, token) in tokens.enumerate() {
            let sums = sums.add(i * PANEL);
            let out = target.out.add(token * target.stride + first);
            if rows == PANEL {
                finish_row::<S>(sums, out, target.write);
                continue;
            }
            let mut whole = [0.0f32; PANEL];
            whole.as_mut_ptr().copy_from_nonoverlapping(out, rows);
            finish_row::<S>(sums, whole.as_mut_ptr(), target.write);
            out.copy_from_nonoverlapping(whole.as_ptr(), rows);
        }
    }
}

#[inline(always)]
unsafe fn finish_row<S: Simd>(sums: *const f32, out: *mut f32, write: Write) {
    for row in (0..PANEL).step_by(S::LANES) {
        let (sums, out) = (S::load_f32(sums.add(row)), out.add(row));
        let value = match write {
            Write::Set => sums,
            Write::Add(factor) => S::mul_add(S::splat(factor), sums, S::load_f32(out)),
            Write::Gate(activation) => gated_product::<S>(activation, S::load_f32(out), sums),
        };
        S::store_f32(out, value);
    }
}
