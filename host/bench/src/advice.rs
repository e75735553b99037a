//! Warnings about conditions that make the figures of a run unreliable, each with a remedy.

use std::time::Duration;

use crate::machine::Ticks;
use crate::stats::{self, Row, Tally, Turn};

/// A row and its turns.
pub(super) struct Measured<'r> {
    pub(super) row: &'r Row,
    pub(super) turns: &'r [Turn],
    pub(super) tally: &'r Tally,
}

/// Warnings about the rows. `rate` is the target rate of an open loop, in requests per second.
pub(super) fn of_rows(rows: &[Measured<'_>], rate: Option<f64>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: &dyn Fn(&Measured<'_>) -> bool, advice: &str| {
        let names: Vec<_> = rows.iter().filter(|row| applies(row)).map(Measured::name).collect();
        if !names.is_empty() {
            warnings.push(format!("{}: {advice}", names.join(", ")));
        }
    };
    let disturbed = |row: &Measured<'_>| row.turns.len() >= 5 && stats::outliers(row.turns) > 0;
    let spread = |row: &Row| row.inferences_per_second_sd / row.inferences_per_second.max(1e-9);
    warn(
        &disturbed,
        "some turns are outliers, so other load interfered; stop other programs, and measure again",
    );
    warn(
        &|row| rate.is_none() && !disturbed(row) && spread(row.row) > 0.1,
        "turns differ by more than 10 %; increase -z, or stop other programs",
    );
    warn(
        &|row| row.row.requests < 100,
        "fewer than 100 answers, so p99 is the slowest of them; increase -z or -n",
    );
    warn(
        &|row| rate.is_some() && row.is_behind(),
        "behind the rate: latencies grow with the length of the run; lower --rate",
    );
    for row in rows {
        if let Some((why, count)) = row.tally.worst_error() {
            let all = count + row.row.requests;
            warnings.push(format!(
                "{}: {count} of {all} requests had no answer; most frequent error: {why}",
                row.name()
            ));
        }
    }
    warnings
}

impl Measured<'_> {
    fn name(&self) -> String {
        format!("`{}` at {}", self.row.path, self.row.concurrency)
    }

    /// True if answers still arrived long after the last request was due.
    fn is_behind(&self) -> bool {
        let sum = |part: fn(&Turn) -> Duration| self.turns.iter().map(part).sum::<Duration>().as_secs_f64();
        let usual = self.turns.len() as f64 * self.row.p50_ms.min(1e3) / 1e3;
        sum(|turn| turn.elapsed) > 1.25 * sum(|turn| turn.planned) + usual
    }
}

/// Warnings about the machine, from the processor ticks at the start (`then`) and the end (`now`).
pub(super) fn of_machine(then: Option<Ticks>, now: Option<Ticks>, here: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if cfg!(debug_assertions) {
        warnings.push(
            "this program is built without optimisation: measure one of `cargo build --release`".to_owned(),
        );
    }
    let taken = then.zip(now).and_then(|(then, now)| then.taken_since(&now));
    // A server on this machine counts among the other processes.
    if let Some((others, _)) = taken.filter(|(others, _)| here && *others > 0.1) {
        warnings.push(format!(
            "other processes used {:.0} % of the processors; stop them, or compare only rows of this run",
            others * 100.0
        ));
    }
    if let Some((_, stolen)) = taken.filter(|(_, stolen)| *stolen > 0.02) {
        warnings.push(format!(
            "other machines on the same host took {:.0} % of the processors; compare only rows of this run",
            stolen * 100.0
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stages;

    fn warnings(answers: u64, per_turn: [u64; 3], elapsed_ms: u64, errors: u64, rate: Option<f64>) -> String {
        let mut tally = Tally::new(None);
        (0..answers).for_each(|_| tally.answered(Duration::from_millis(1), &Stages::default()));
        if errors > 0 {
            tally.failed("busy", errors);
        }
        let turns = per_turn.map(|answers| Turn {
            elapsed: Duration::from_millis(elapsed_ms),
            planned: Duration::from_millis(1000),
            answers,
        });
        let row = Row::new("native", 4, &turns, &tally);
        of_rows(&[Measured { row: &row, turns: &turns, tally: &tally }], rate).join("\n")
    }

    #[test]
    fn advice_names_each_weakness_only() {
        assert_eq!(warnings(3000, [1000, 1001, 999], 1000, 0, None), "");
        assert!(warnings(3000, [1000, 500, 1500], 1000, 0, None).starts_with("`native` at 4: turns differ"));
        assert!(warnings(30, [10, 10, 10], 1000, 0, None).contains("fewer than 100 answers"));
        let errors = warnings(3000, [1000; 3], 1000, 7, None);
        assert_eq!(errors, "`native` at 4: 7 of 3007 requests had no answer; most frequent error: busy");
        assert_eq!(warnings(3000, [1000; 3], 1005, 0, Some(1000.0)), "");
        assert!(warnings(3000, [1000; 3], 2000, 0, Some(1000.0)).contains("behind the rate"));
    }
}
