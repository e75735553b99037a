//! Statistics: from the calls of a row to its metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use infer_engine::TokenUsage;
use infer_engine::text::excerpt;
use infer_sandbox::Usage;
use serde::Serialize;

use crate::limits::{MAX_ERROR_BYTES, MAX_ERROR_KINDS, MAX_LATENCY_NS};

/// Times of one call besides its latency. `None` if the path lacks the stage or does not report it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages {
    pub(super) queue: Duration,
    pub(super) compute: Duration,
    pub(super) instance: Option<Instance>,
    pub(super) batch: Option<usize>,
    pub(super) tokens: TokenUsage,
}

/// Times of one guest instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance {
    pub(super) instantiate: Duration,
    pub(super) guest: Duration,
    /// `None` over HTTP, where it happens after the answer.
    pub(super) drop: Option<Duration>,
}

impl From<&Usage> for Stages {
    fn from(usage: &Usage) -> Self {
        let Usage { queue, instantiate, guest, compute, drop, batch, tokens, .. } = *usage;
        let instance = Some(Instance { instantiate, guest, drop: Some(drop) });
        Stages { queue, compute, instance, batch: Some(batch), tokens }
    }
}

/// Sum of all calls of one row. Its size does not depend on their number.
pub(super) struct Tally {
    latency: Times,
    instantiate: Times,
    guest: Times,
    drop: Times,
    queue: Duration,
    compute: Duration,
    batch: u64,
    batched: u64,
    tokens: TokenUsage,
    slo: Option<Duration>,
    within_slo: u64,
    errors: BTreeMap<String, u64>,
}

/// Durations with three significant digits.
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Times(Histogram::new(3).expect("three digits are in a histogram's range"))
    }

    fn record(&mut self, time: Duration) {
        // The value is clamped and the histogram resizes itself, so recording cannot fail.
        let _ = self.0.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(MAX_LATENCY_NS));
    }

    /// The percentile `percent`, in milliseconds; 0 if there are no values.
    fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_quantile(percent / 100.0) as f64 / 1e6
    }

    /// The median, in microseconds; `None` if there are no values.
    fn median_us(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.percentile_ms(50.0) * 1e3)
    }
}

impl Tally {
    /// An empty tally. Answers within `slo` are also counted separately.
    pub(super) fn new(slo: Option<Duration>) -> Self {
        let [latency, instantiate, guest, drop] = std::array::from_fn(|_| Times::new());
        Tally {
            latency,
            instantiate,
            guest,
            drop,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            batch: 0,
            batched: 0,
            tokens: TokenUsage::default(),
            slo,
            within_slo: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Records an answer.
    pub(super) fn answered(&mut self, latency: Duration, stages: &Stages) {
        self.latency.record(latency);
        self.within_slo += u64::from(self.slo.is_some_and(|slo| latency <= slo));
        self.queue += stages.queue;
        self.compute += stages.compute;
        self.tokens += stages.tokens;
        if let Some(batch) = stages.batch {
            self.batch += batch as u64;
            self.batched += 1;
        }
        if let Some(Instance { instantiate, guest, drop }) = stages.instance {
            self.instantiate.record(instantiate);
            self.guest.record(guest);
            drop.into_iter().for_each(|drop| self.drop.record(drop));
        }
    }

    /// Records `count` failed calls with the same reason.
    pub(super) fn failed(&mut self, why: &str, count: u64) {
        let why = excerpt(why, MAX_ERROR_BYTES);
        let known = self.errors.contains_key(&*why) || self.errors.len() < MAX_ERROR_KINDS - 1;
        *self.errors.entry(if known { &*why } else { "other errors" }.to_owned()).or_default() += count;
    }

    /// Number of answered calls.
    pub(super) fn answers(&self) -> u64 {
        self.latency.0.len()
    }

    /// The most frequent error, and the total number of errors.
    pub(super) fn worst_error(&self) -> Option<(&str, u64)> {
        let (why, _) = self.errors.iter().max_by_key(|(_, count)| **count)?;
        Some((why, self.errors.values().sum()))
    }

    /// Medians of an instance's times, in microseconds; `None` without instances.
    pub(super) fn instance_us(&self) -> Option<InstanceCost> {
        let (instantiate, guest) = (self.instantiate.median_us()?, self.guest.median_us()?);
        Some(InstanceCost { instantiate, guest, drop: self.drop.median_us()? })
    }

    /// Latencies in milliseconds at percentiles that approach 100, for a plot.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let steps = (0..=80).map(|step| 100.0 * (1.0 - 10f64.powf(-f64::from(step) / 20.0)));
        let enough = |percent: &f64| (100.0 - percent) / 100.0 * self.answers() as f64 >= 1.0;
        steps
            .take_while(|percent| enough(percent) || *percent == 0.0)
            .map(|p| (p, self.latency.percentile_ms(p)))
            .collect()
    }
}

/// Cost of an instance: medians, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct InstanceCost {
    pub(super) instantiate: f64,
    pub(super) guest: f64,
    pub(super) drop: f64,
}

/// One turn of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) elapsed: Duration,
    /// Time until the last request was due; the whole turn in a closed loop.
    pub(super) planned: Duration,
    pub(super) answers: u64,
}

impl Turn {
    fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// One path at one concurrency. Rates are medians over the turns; times are over all answers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// `native`, `sandbox` or `http`.
    pub(super) path: &'static str,
    /// Requests in flight; in an open loop, their maximum.
    pub(super) concurrency: u32,
    /// Number of answers.
    pub(super) requests: u64,
    pub(super) inferences_per_second: f64,
    pub(super) inferences_per_second_sd: f64,
    /// Answers within --slo-ms, per second.
    pub(super) goodput_per_second: Option<f64>,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    /// Mean time waiting for an instance and in models' queues.
    pub(super) queue_ms: f64,
    /// Median time to create the instance.
    pub(super) instantiate_us: Option<f64>,
    /// Median time in guest code.
    pub(super) guest_us: Option<f64>,
    /// Mean time of the model runs that served the request, in batches with others.
    pub(super) compute_ms: f64,
    /// Mean size, in rows, of the largest batch that a request was part of.
    pub(super) batch_mean: Option<f64>,
    /// Fraction of prompt tokens found in the prefix cache; `None` without a language model.
    pub(super) cached_ratio: Option<f64>,
    /// Mean tokens per prompt.
    pub(super) prompt_tokens: Option<f64>,
    /// Requests that failed.
    pub(super) errors: u64,
    /// Latencies by percentile, for a plot.
    #[serde(skip)]
    pub(super) curve: Vec<(f64, f64)>,
}

impl Row {
    pub(super) fn new(path: &'static str, concurrency: u32, turns: &[Turn], tally: &Tally) -> Row {
        let rates: Vec<_> = turns.iter().map(Turn::per_second).collect();
        let answers = tally.answers();
        let mean = |sum: f64| sum / answers.max(1) as f64;
        let rate = median(rates.clone());
        let TokenUsage { prompt_tokens, cached_tokens, .. } = tally.tokens;
        let language = prompt_tokens > 0;
        Row {
            path,
            concurrency,
            requests: answers,
            inferences_per_second: rate,
            inferences_per_second_sd: deviation(&rates),
            goodput_per_second: tally.slo.map(|_| rate * mean(tally.within_slo as f64)),
            p50_ms: tally.latency.percentile_ms(50.0),
            p90_ms: tally.latency.percentile_ms(90.0),
            p99_ms: tally.latency.percentile_ms(99.0),
            queue_ms: mean(tally.queue.as_secs_f64() * 1e3),
            instantiate_us: tally.instantiate.median_us(),
            guest_us: tally.guest.median_us(),
            compute_ms: mean(tally.compute.as_secs_f64() * 1e3),
            batch_mean: (tally.batched > 0).then(|| tally.batch as f64 / tally.batched as f64),
            cached_ratio: language.then(|| cached_tokens as f64 / prompt_tokens as f64),
            prompt_tokens: language.then(|| mean(prompt_tokens as f64)),
            errors: tally.errors.values().sum(),
            curve: tally.curve(),
        }
    }
}

/// The median over turns of `a`'s rate divided by `b`'s in the same turn; 0 if `b` has no answers.
pub(super) fn ratio(a: &[Turn], b: &[Turn]) -> f64 {
    let pairs = a.iter().zip(b).filter(|(_, b)| b.answers > 0);
    median(pairs.map(|(a, b)| a.per_second() / b.per_second()).collect())
}

/// Number of turns whose rate is an outlier: more than 3.5 scaled median absolute deviations from
/// the median (Iglewicz and Hoaglin, 1993).
pub(super) fn outliers(turns: &[Turn]) -> usize {
    let rates: Vec<_> = turns.iter().map(Turn::per_second).collect();
    let middle = median(rates.clone());
    let away: Vec<_> = rates.iter().map(|rate| (rate - middle).abs()).collect();
    let spread = median(away.clone());
    away.iter().filter(|away| 0.6745 * **away > 3.5 * spread.max(0.01 * middle)).count()
}

/// The median; 0 if `values` is empty.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    (values[last / 2] + values[last.div_ceil(2)]) / 2.0
}

/// The sample standard deviation; 0 for fewer than two values.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(answers: u64, seconds: u64) -> Turn {
        Turn { elapsed: Duration::from_secs(seconds), planned: Duration::from_secs(seconds), answers }
    }

    #[test]
    fn known_values_have_known_figures() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(deviation(&[2.0]), 0.0);
        assert!((deviation(&[1.0, 2.0, 3.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ratio_pairs_interleaved_runs() {
        let (a, b) = ([turn(100, 1), turn(10, 1), turn(50, 1)], [turn(200, 1), turn(20, 1), turn(50, 1)]);
        assert!((ratio(&a, &b) - 0.5).abs() < 1e-12);
        assert_eq!(ratio(&[turn(1, 1)], &[turn(0, 1)]), 0.0);
    }

    #[test]
    fn one_slow_run_of_ten_is_an_outlier() {
        let mut turns: Vec<_> = (0..10).map(|index| turn(1000 + index, 1)).collect();
        assert_eq!(outliers(&turns), 0);
        turns[3] = turn(500, 1);
        assert_eq!(outliers(&turns), 1);
    }

    #[test]
    fn row_sums_its_calls() {
        let mut tally = Tally::new(Some(Duration::from_millis(50)));
        for millisecond in 1..=100 {
            let stages = Stages {
                queue: Duration::from_millis(2),
                compute: Duration::from_millis(millisecond),
                instance: Some(Instance {
                    instantiate: Duration::from_micros(10),
                    guest: Duration::from_micros(20),
                    drop: Some(Duration::from_micros(30)),
                }),
                batch: Some(4),
                tokens: TokenUsage { prompt_tokens: 100, cached_tokens: 75, generated_tokens: 0 },
            };
            tally.answered(Duration::from_millis(millisecond), &stages);
        }
        tally.failed("busy", 3);
        let row = Row::new("sandbox", 4, &[turn(40, 1), turn(60, 1)], &tally);
        let close =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.002, "{found} {expected}");
        close(row.inferences_per_second, 50.0);
        close(row.goodput_per_second.unwrap(), 25.0);
        close(row.p50_ms, 50.0);
        close(row.p90_ms, 90.0);
        close(row.p99_ms, 99.0);
        close(row.queue_ms, 2.0);
        close(row.compute_ms, 50.5);
        close(row.instantiate_us.unwrap(), 10.0);
        close(row.guest_us.unwrap(), 20.0);
        close(row.batch_mean.unwrap(), 4.0);
        close(row.cached_ratio.unwrap(), 0.75);
        assert_eq!((row.requests, row.errors), (100, 3));
        assert!(row.curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::new(None);
        (0..100).for_each(|index| tally.failed(&format!("é{index}{}", "é".repeat(1000)), 1));
        assert_eq!(tally.errors.len(), MAX_ERROR_KINDS);
        assert_eq!(tally.worst_error(), Some(("other errors", 100)));
    }
}
