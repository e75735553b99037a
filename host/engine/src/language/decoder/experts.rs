//! A feed-forward network of experts (mixture of experts): a router chooses some of them for each
//! row, and each expert computes all rows that chose it in one product.

use infer_kernels::{Activation, Activations, Pool, QuantizedMatrix, Write};

use super::products::{Gate, Residual, room};

pub(super) struct Experts {
    /// (experts, hidden)
    pub(super) router: QuantizedMatrix,
    pub(super) experts: Vec<Expert>,
    /// Experts of each row.
    pub(super) used: usize,
    pub(super) residual: Residual,
}

pub(super) struct Expert {
    pub(super) gate: Gate,
    pub(super) down: QuantizedMatrix,
}

/// Buffers of a pass.
#[derive(Default)]
pub(super) struct ExpertBuffers {
    /// (rows, experts)
    scores: Vec<f32>,
    /// Rows of one expert, (chosen rows, hidden).
    input: Activations,
    /// Products of one expert, (chosen rows, hidden).
    product: Vec<f32>,
    /// Sums over the experts, (rows, hidden).
    sums: Vec<f32>,
}

/// A row that chose an expert, and the weight of the expert's result.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    expert: usize,
    row: usize,
    weight: f32,
}

impl Experts {
    /// Size of the packed weights in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let experts = self.experts.iter().map(|expert| expert.gate.size_bytes() + expert.down.size_bytes());
        experts.sum::<usize>() + self.router.size_bytes()
    }

    /// Adds the weighted results of each row's experts to `stream`, (rows, hidden). `gated` holds
    /// the values between an expert's matrices.
    pub(super) fn add(
        &self,
        pool: &Pool,
        activation: Activation,
        input: &mut Activations,
        stream: &mut [f32],
        gated: &mut Activations,
        buffers: &mut ExpertBuffers,
    ) {
        let (hidden, count) = (self.router.columns(), self.experts.len());
        let ExpertBuffers { scores, input: chosen, product, sums } = buffers;
        let scores = room(scores, input.rows() * count);
        self.router.matmul(pool, input, scores, count, Write::Set);
        let choices = choices(scores, count, self.used);
        let sums = room(sums, stream.len());
        sums.fill(0.0);
        for group in choices.chunk_by(|one, other| one.expert == other.expert) {
            let rows = chosen.room(group.len(), hidden);
            for (choice, to) in group.iter().zip(rows.chunks_exact_mut(hidden)) {
                to.copy_from_slice(&input.values()[choice.row * hidden..][..hidden]);
            }
            let Expert { gate, down } = &self.experts[group[0].expert];
            gate.apply(pool, activation, chosen, gated);
            let product = room(product, group.len() * hidden);
            down.matmul(pool, gated, product, hidden, Write::Set);
            for (choice, product) in group.iter().zip(product.chunks_exact(hidden)) {
                let sums = &mut sums[choice.row * hidden..][..hidden];
                sums.iter_mut().zip(product).for_each(|(sum, value)| *sum += choice.weight * value);
            }
        }
        self.residual.add(pool, sums, stream);
    }
}

/// The `used` best experts of each row of `scores`, (rows, experts), ordered by expert. Their
/// weights are the softmax over the chosen scores.
fn choices(scores: &[f32], experts: usize, used: usize) -> Vec<Choice> {
    let mut all = Vec::with_capacity(scores.len() / experts * used);
    let mut order: Vec<usize> = Vec::with_capacity(experts);
    for (row, scores) in scores.chunks_exact(experts).enumerate() {
        order.clear();
        order.extend(0..experts);
        order.sort_by(|&one, &other| scores[other].total_cmp(&scores[one]));
        let best = scores[order[0]];
        let power = |expert: usize| (scores[expert] - best).exp();
        let total: f32 = order[..used].iter().map(|&expert| power(expert)).sum();
        all.extend(order[..used].iter().map(|&expert| Choice { expert, row, weight: power(expert) / total }));
    }
    all.sort_by_key(|choice| choice.expert);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_experts_are_grouped_and_weighted() {
        let ln = |value: f32| value.ln();
        // Softmax of the two best scores: 3 : 1 and 1 : 1.
        let scores = [ln(1.0), ln(3.0), ln(0.5), ln(2.0), ln(0.1), ln(2.0)];
        let found = choices(&scores, 3, 2);
        let expected = [(0, 0, 0.25), (0, 1, 0.5), (1, 0, 0.75), (2, 1, 0.5)];
        for (choice, (expert, row, weight)) in found.iter().zip(expected) {
            assert_eq!((choice.expert, choice.row), (expert, row));
            assert!((choice.weight - weight).abs() < 1e-6, "{choice:?}");
        }
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn equal_and_nan_scores_choose_valid_experts() {
        let found = choices(&[1.0, 1.0, 1.0, f32::NAN, 0.0, f32::NEG_INFINITY], 3, 2);
        let experts: Vec<_> = found.iter().map(|choice| (choice.expert, choice.row)).collect();
        assert_eq!(experts, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }
}
