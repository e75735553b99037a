//! Embeddings of examples, and products with them.

/// Numbers that are added up beside each other, so that the compiler can use vector registers. The
/// order of summation is fixed, and so is the result.
const LANES: usize = 8;

/// Embeddings of examples: f32 `[examples, size]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    values: Vec<f32>,
    size: usize,
}

impl Features {
    /// The embeddings in `values`, each of `size` numbers.
    ///
    /// # Errors
    ///
    /// If `size` is 0, if the last embedding is incomplete, or if a number is not finite.
    pub fn new(values: Vec<f32>, size: usize) -> anyhow::Result<Features> {
        anyhow::ensure!(
            size > 0 && values.len().is_multiple_of(size),
            "{} values are no embeddings of {size} numbers",
            values.len()
        );
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            anyhow::bail!(
                "the embedding of example {} has {}, expected finite numbers",
                at / size,
                values[at]
            );
        }
        Ok(Features { values, size })
    }

    /// Numbers of an embedding.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.values.len() / self.size
    }

    /// The embedding of an example.
    pub fn row(&self, example: usize) -> &[f32] {
        &self.values[example * self.size..][..self.size]
    }

    /// Mean of the embeddings of `examples`, and the root of their mean squared distance from it
    /// (at least the smallest positive number, so that it can divide).
    pub(crate) fn centre(&self, examples: &[usize]) -> (Vec<f64>, f64) {
        let count = examples.len().max(1) as f64;
        let mut mean = vec![0.0; self.size];
        for &example in examples {
            add_scaled(&mut mean, 1.0 / count, self.row(example));
        }
        let squared = |example: &usize| {
            let distances = self.row(*example).iter().zip(&mean);
            distances.map(|(value, mean)| (f64::from(*value) - mean).powi(2)).sum::<f64>()
        };
        let spread = (examples.iter().map(squared).sum::<f64>() / count).sqrt();
        (mean, spread.max(f64::MIN_POSITIVE.sqrt()))
    }
}

/// The scalar product.
pub(crate) fn dot(row: &[f32], weights: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (rows, row_rest) = row.as_chunks::<LANES>();
    let (all, rest) = weights.as_chunks::<LANES>();
    for (row, weights) in rows.iter().zip(all) {
        for lane in 0..LANES {
            sums[lane] += f64::from(row[lane]) * weights[lane];
        }
    }
    let rest: f64 = row_rest.iter().zip(rest).map(|(value, weight)| f64::from(*value) * weight).sum();
    sums.iter().sum::<f64>() + rest
}

/// Adds `factor * row` to `sum`.
pub(crate) fn add_scaled(sum: &mut [f64], factor: f64, row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * f64::from(*value);
    }
}
