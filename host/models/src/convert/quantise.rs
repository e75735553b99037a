//! Symmetric int8 values: a weight is nearly its value times the scale of its row.

/// Largest int8 value that is used; -128 is not, so that the range is symmetric.
const LARGEST: f32 = 127.0;

/// Smallest scale, for rows of zeros.
pub(super) const SMALLEST_SCALE: f32 = 1e-12;

/// Rows of int8 values.
pub(super) struct Quantised {
    /// The values, row by row, as bytes.
    pub(super) values: Vec<u8>,
    /// One scale per row.
    pub(super) scales: Vec<f32>,
}

/// Quantises finite `values` in rows of `width`.
pub(super) fn rows(values: &[f32], width: usize) -> Quantised {
    let mut quantised = Quantised {
        values: Vec::with_capacity(values.len()),
        scales: Vec::with_capacity(values.len() / width.max(1)),
    };
    for row in values.chunks_exact(width.max(1)) {
        let top = row.iter().fold(0_f32, |top, value| top.max(value.abs()));
        let scale = (top / LARGEST).max(SMALLEST_SCALE);
        let byte = |value: &f32| (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8 as u8;
        quantised.values.extend(row.iter().map(byte));
        quantised.scales.push(scale);
    }
    quantised
}

/// Transposes a matrix with rows of `width` bytes.
pub(super) fn transposed(matrix: &[u8], width: usize) -> Vec<u8> {
    let height = matrix.len() / width.max(1);
    let mut out = vec![0; matrix.len()];
    for (row, values) in matrix.chunks_exact(width.max(1)).enumerate() {
        for (column, value) in values.iter().enumerate() {
            out[column * height + row] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_their_own_scales() {
        let Quantised { values, scales } = rows(&[1.0, -2.0, 0.5, 0.0, 0.0, 0.0, 254.0, 1.0, 3.0], 3);
        let values: Vec<_> = values.iter().map(|byte| *byte as i8).collect();
        // 63.5 and 31.75 round to the even neighbour and up; 0.5 and 1.5 to even.
        assert_eq!(values, [64, -127, 32, 0, 0, 0, 127, 0, 2]);
        assert_eq!(scales, [2.0 / 127.0, SMALLEST_SCALE, 2.0]);
    }

    #[test]
    fn columns_become_rows() {
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }
}
