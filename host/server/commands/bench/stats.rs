//! From the calls of each turn to the figures of a row.

use std::time::Duration;

use infer_sandbox::Usage;
use serde::Serialize;

/// One stretch of measuring one path.
pub(super) struct Turn {
    pub(super) elapsed: Duration,
    /// Each call's latency, and what it used.
    pub(super) calls: Vec<(Duration, Usage)>,
}

impl Turn {
    fn per_second(&self) -> f64 {
        self.calls.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// One path's figures. Rates are medians over the turns; times are over all calls, means unless named.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) path: &'static str,
    pub(super) concurrency: u32,
    pub(super) inferences_per_second: f64,
    pub(super) inferences_per_second_sd: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) queue_ms: f64,
    pub(super) compute_ms: f64,
    pub(super) batch_mean: f64,
}

impl Row {
    pub(super) fn new(path: &'static str, concurrency: u32, turns: &[Turn]) -> Row {
        let rates: Vec<_> = turns.iter().map(Turn::per_second).collect();
        let calls = || turns.iter().flat_map(|turn| &turn.calls);
        let mut latencies: Vec<_> = calls().map(|(latency, _)| milliseconds(*latency)).collect();
        latencies.sort_by(f64::total_cmp);
        Row {
            path,
            concurrency,
            inferences_per_second: median(rates.clone()),
            inferences_per_second_sd: deviation(&rates),
            p50_ms: percentile(&latencies, 50.0),
            p90_ms: percentile(&latencies, 90.0),
            p99_ms: percentile(&latencies, 99.0),
            queue_ms: mean(calls().map(|(_, usage)| milliseconds(usage.queue))),
            compute_ms: mean(calls().map(|(_, usage)| milliseconds(usage.compute))),
            batch_mean: mean(calls().map(|(_, usage)| usage.batch as f64)),
        }
    }
}

/// The median over turns of `a`'s rate by `b`'s in the same turn.
pub(super) fn ratio(a: &[Turn], b: &[Turn]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| a.per_second() / b.per_second()).collect())
}

/// The median over all calls of one part of what they used, in microseconds.
pub(super) fn median_us(turns: &[Turn], part: impl Fn(&Usage) -> Duration) -> f64 {
    let parts = turns.iter().flat_map(|turn| &turn.calls).map(|(_, usage)| part(usage).as_secs_f64() * 1e6);
    median(parts.collect())
}

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle value; 0 for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 50.0)
}

/// Of `sorted` values, by linear interpolation; 0 for none.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = percent / 100.0 * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

/// The standard deviation of a sample; 0 for fewer than two.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_values() {
        assert_eq!(percentile(&[], 50.0), 0.0);
        assert_eq!(percentile(&[3.0], 99.0), 3.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 50.0), 2.5);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 100.0), 4.0);
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(mean([1.0, 2.0].into_iter()), 1.5);
        assert_eq!(deviation(&[2.0]), 0.0);
        assert!((deviation(&[1.0, 2.0, 3.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_ratio_pairs_the_turns() {
        let turn = |calls, seconds| Turn {
            elapsed: Duration::from_secs(seconds),
            calls: vec![(Duration::from_millis(1), Usage::default()); calls],
        };
        let (a, b) =
            (vec![turn(100, 1), turn(10, 1), turn(50, 1)], vec![turn(200, 1), turn(20, 1), turn(50, 1)]);
        assert!((ratio(&a, &b) - 0.5).abs() < 1e-12);
    }
}
