//! Sampling: from logits to the next token.

use super::request::Params;

/// Number of most likely tokens that are sorted first.
const FIRST_SORTED: usize = 1024;

/// A sampler for one answer.
pub(super) struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    random: fastrand::Rng,
    /// Tokens with logits, later with weights; reused to avoid allocation.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    pub(super) fn new(params: &Params) -> Self {
        let Params { temperature, top_p, top_k, seed, .. } = *params;
        Sampler { temperature, top_p, top_k, random: fastrand::Rng::with_seed(seed), candidates: Vec::new() }
    }

    /// The next token: the most likely one at temperature 0, otherwise a draw from the `top_k` most
    /// likely tokens, limited to the fewest with total probability `top_p`.
    pub(super) fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        let Sampler { temperature, top_p, top_k, random, candidates } = self;
        candidates.clear();
        candidates.extend((0..).zip(logits.iter().copied()));
        let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if *top_k > 0 && *top_k < candidates.len() {
            candidates.select_nth_unstable_by(*top_k - 1, descending);
            candidates.truncate(*top_k);
        }
        let max = candidates.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
        candidates.iter_mut().for_each(|(_, value)| *value = ((*value - max) / *temperature).exp());
        if *top_p < 1.0 {
            let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
            let (mut sorted, mut cumulated) = (0, 0.0);
            // A vocabulary has 150,000 tokens, and the most likely few hundred have nearly all of
            // the probability. These are sorted first, and more only as needed.
            let mut part = FIRST_SORTED;
            let enough = loop {
                let rest = &mut candidates[sorted..];
                if part < rest.len() {
                    rest.select_nth_unstable_by(part, descending);
                }
                let end = sorted + part.min(rest.len());
                candidates[sorted..end].sort_unstable_by(descending);
                let last = candidates[sorted..end].iter().position(|(_, weight)| {
                    cumulated += weight;
                    cumulated >= *top_p * total
                });
                match last {
                    Some(last) => break sorted + last + 1,
                    None if end == candidates.len() => break end,
                    None => (sorted, part) = (end, part * 8),
                }
            };
            candidates.truncate(enough);
        }
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut remaining = random.f32() * total;
        let drawn = candidates.iter().find(|(_, weight)| {
            remaining -= weight;
            remaining < 0.0
        });
        drawn.or(candidates.last()).map_or_else(|| argmax(logits), |(token, _)| *token)
    }
}

/// The most likely token; the first of equals.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let better = |best: (u32, f32), next: (u32, f32)| if next.1 > best.1 { next } else { best };
    (0..).zip(logits.iter().copied()).fold((0, f32::NEG_INFINITY), better).0
}

/// The `count` most likely tokens in descending order; of equals, the first ones.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (token, logit) in (0..).zip(logits) {
        if best.len() == count && best.last().is_none_or(|&last| *logit <= logits[last as usize]) {
            continue;
        }
        let place = best.partition_point(|&better| logits[better as usize] >= *logit);
        best.insert(place, token);
        best.truncate(count);
    }
    best
}

/// The log-probability of a token is its logit minus this value.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
    max + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn drawn(params: &Params) -> Vec<u32> {
        let mut sampler = Sampler::new(params);
        let mut tokens: Vec<_> = (0..400).map(|_| sampler.choose(&LOGITS)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    #[test]
    fn temperature_0_selects_first_most_likely_token() {
        assert_eq!(drawn(&Params::default()), [1]);
    }

    #[test]
    fn top_k_and_top_p_drop_unlikely_tokens() {
        let hot = Params { temperature: 5.0, ..Params::default() };
        assert_eq!(drawn(&hot), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(&Params { top_k: 2, ..hot.clone() }), [1, 3]);
        assert_eq!(drawn(&Params { top_p: 0.01, ..hot.clone() }), [1]);
        // At temperature 1, the two most likely tokens have 0.39 each, and the third 0.14.
        let warm = Params { temperature: 1.0, ..hot };
        assert_eq!(drawn(&Params { top_p: 0.7, ..warm.clone() }), [1, 3]);
        assert_eq!(drawn(&Params { top_p: 0.8, ..warm }), [1, 2, 3]);
    }

    #[test]
    fn top_p_matches_a_full_sort() {
        let mut random = fastrand::Rng::with_seed(11);
        // From a single dominant token to a nearly uniform distribution.
        for spread in [30.0, 8.0, 2.0, 0.1] {
            let logits: Vec<f32> = (0..20_000).map(|_| random.f32() * spread).collect();
            let max = logits.iter().copied().fold(0.0, f32::max);
            let weight = |token: &u32| (logits[*token as usize] - max).exp();
            let mut order: Vec<u32> = (0..20_000).collect();
            order.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.cmp(b)));
            for top_p in [0.1, 0.5, 0.9, 0.999] {
                let params = Params { temperature: 1.0, top_p, seed: 1, ..Params::default() };
                let mut sampler = Sampler::new(&params);
                sampler.choose(&logits);
                let selected: Vec<u32> = sampler.candidates.iter().map(|(token, _)| *token).collect();
                assert!(selected == order[..selected.len()], "{spread} {top_p}");
                let sum = |tokens: &[u32]| tokens.iter().map(|token| f64::from(weight(token))).sum::<f64>();
                let (mass, before) = (sum(&selected), sum(&selected[..selected.len() - 1]));
                let target = f64::from(top_p) * sum(&order);
                assert!(
                    mass > target * 0.9999 && before < target * 1.0001,
                    "{spread} {top_p}: {} kept",
                    selected.len()
                );
            }
        }
    }

    #[test]
    fn seed_determines_draws() {
        let draw = |seed| {
            let mut sampler = Sampler::new(&Params { temperature: 2.0, seed, ..Params::default() });
            (0..50).map(|_| sampler.choose(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn most_likely_tokens_are_in_descending_order() {
        assert_eq!(likeliest(&LOGITS, 3), [1, 3, 2]);
        assert_eq!(likeliest(&LOGITS, 9), [1, 3, 2, 0, 4]);
        assert!(likeliest(&LOGITS, 0).is_empty());
    }

    #[test]
    fn log_probabilities_sum_to_1() {
        let normaliser = log_sum_exp(&LOGITS);
        let sum: f32 = LOGITS.iter().map(|logit| (logit - normaliser).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
}
