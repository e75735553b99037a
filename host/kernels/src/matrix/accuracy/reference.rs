//! The expected result of a product in f64, and the permitted distance from it.

use crate::dequantize::{Block, dequantize_row};
use crate::layout::layout;
use crate::weight_type::WeightType;

/// Half a unit in the last place of an f32 between 1 and 2: the maximum error of one rounding.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// A matrix in the encoding of GGUF files, decoded to f64.
pub(super) struct Reference {
    pub(super) ty: WeightType,
    pub(super) rows: usize,
    pub(super) columns: usize,
    weights: Vec<f64>,
    /// Magnitude of what is summed for each weight: code times scale, and the minimum, which may
    /// cancel each other.
    magnitudes: Vec<f64>,
    /// Sums of magnitudes and of squares, for each group of columns with one input scale.
    norms: Vec<(f64, f64)>,
}

/// One expected result.
pub(super) struct Expected {
    /// Results for the f32 input and for its int8 form.
    pub(super) exact: f64,
    pub(super) int8: f64,
    /// Maximum distance of f32 sums from `int8`, and of `int8` from `exact`.
    pub(super) rounding: f64,
    pub(super) quantisation: f64,
    /// Mean square of the distance from `exact` if errors are independent.
    pub(super) variance: f64,
}

impl Reference {
    pub(super) fn new(ty: WeightType, bytes: &[u8], rows: usize, columns: usize) -> Self {
        let size = ty.row_bytes(columns).unwrap();
        let mut weights = Vec::new();
        let mut values = vec![0.0; columns];
        for row in bytes.chunks_exact(size) {
            dequantize_row(ty, row, &mut values);
            weights.extend(values.iter().map(|&value| f64::from(value)));
        }
        let mut magnitudes: Vec<f64> = weights.iter().map(|weight| weight.abs()).collect();
        if ty.block_elements() > 1 {
            let layout = layout(ty);
            for (bytes, (weights, magnitudes)) in bytes
                .chunks_exact(ty.block_bytes())
                .zip(weights.chunks_exact(layout.group).zip(magnitudes.chunks_exact_mut(layout.group)))
            {
                let mut block = Block::empty();
                block.read(ty, bytes);
                for (i, (weight, magnitude)) in weights.iter().zip(magnitudes).enumerate() {
                    let minimum = f64::from(block.minimum_of(&layout, i / layout.sub));
                    *magnitude = (weight + minimum).abs() + minimum.abs();
                }
            }
        }
        let norms = weights
            .chunks_exact(ty.block_elements())
            .map(|weights| (weights.iter().map(|w| w.abs()).sum(), dot(weights, weights)))
            .collect();
        Self { ty, rows, columns, weights, magnitudes, norms }
    }

    /// Expected results of one token.
    pub(super) fn expect(&self, token: &[f32]) -> Vec<Expected> {
        let columns = self.columns;
        let exact: Vec<f64> = token.iter().map(|&x| f64::from(x)).collect();
        let (int8, scales) = as_int8(self.ty, token);
        let magnitudes: Vec<f64> = int8.iter().map(|x| x.abs()).collect();
        let squares: Vec<f64> =
            if scales.is_empty() { exact.iter().map(|x| x * x).collect() } else { vec![] };
        let group = self.ty.block_elements();
        let row = |row: usize| {
            let weights = &self.weights[row * columns..][..columns];
            let norms = &self.norms[row * columns / group..][..columns / group];
            let (mut quantisation, mut variance) = (0.0, 0.0);
            for (i, (&scale, (sum, of_squares))) in scales.iter().zip(norms).enumerate() {
                if scale == 0.0 {
                    // The whole group is below 1e-30 and becomes zero.
                    let values = i * group..(i + 1) * group;
                    quantisation += sum * exact[values].iter().fold(0.0f64, |max, x| max.max(x.abs()));
                }
                // The inverse of the scale is f32, and so are its products.
                quantisation += scale * (0.5 + 127.0 * 4.0 * ROUNDING) * sum;
                variance += scale * scale / 12.0 * of_squares;
            }
            if scales.is_empty() {
                // Each of n sums is rounded, and has k / n of the mean square of the total.
                let weights: Vec<f64> = weights.iter().map(|w| w * w).collect();
                variance = ROUNDING * ROUNDING * (columns as f64 / 2.0 + 2.0) * dot(&weights, &squares);
            }
            let roundings = if scales.is_empty() { 2 * columns } else { 4 * scales.len() + 40 };
            let magnitude = dot(&self.magnitudes[row * columns..][..columns], &magnitudes);
            Expected {
                exact: dot(weights, &exact),
                int8: dot(weights, &int8),
                // Below the smallest normal number a step is 2⁻¹⁴⁹, of a scale that is multiplied
                // with up to 2²⁰.
                rounding: roundings as f64 * ROUNDING * magnitude + columns as f64 * 2f64.powi(20 - 149),
                quantisation,
                variance,
            }
        };
        (0..self.rows).map(row).collect()
    }
}

/// Number of parallel sums, which lets the compiler vectorise the loop.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Values after quantisation to int8, and the scales. Types that use f32 inputs get the values
/// themselves and no scales.
fn as_int8(ty: WeightType, token: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let group = ty.block_elements();
    if group == 1 {
        return (token.iter().map(|&x| f64::from(x)).collect(), vec![]);
    }
    let (mut out, mut scales) = (Vec::new(), Vec::new());
    for values in token.chunks_exact(group) {
        let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let scale = if largest < 1e-30 { 0.0 } else { largest / 127.0 };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        scales.push(f64::from(scale));
        out.extend(values.iter().map(|x| f64::from((x * inverse).round_ties_even()) * f64::from(scale)));
    }
    (out, scales)
}
