//! Load generation: a closed loop with a number of clients, or an open loop with an arrival rate.
//!
//! In an open loop arrivals do not wait for answers. Each arrival has a due time, and its latency
//! counts from then, even if it is sent later. The latency of an overloaded target thus includes
//! the waiting, which a client that waits for its last answer would hide (coordinated omission).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::path::Path;
use crate::stats::{Tally, Turn};

/// The arrival process of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Each client sends its next request after an answer.
    Closed,
    /// A Poisson process with this mean rate.
    Open { per_second: f64 },
}

/// The length of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent {
    Time(Duration),
    Requests(u64),
}

/// Pause of a client after a failed request, so that a target that refuses is not hammered.
const AFTER_ERROR: Duration = Duration::from_millis(1);

/// A row under measurement: its path, its concurrency, and its results so far.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) path: Arc<Path>,
    pub(super) concurrency: u32,
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Counts the requests of the row, so that each one differs.
    pub(super) next: Arc<AtomicU64>,
}

impl Lane {
    /// Runs one turn.
    ///
    /// # Errors
    ///
    /// If a client panics.
    pub(super) async fn turn(&self, pace: Pace, extent: Extent, random: &mut Rng) -> anyhow::Result<Turn> {
        self.path.begin_turn();
        let before = self.tally().answers();
        let began = Instant::now();
        let planned = match pace {
            Pace::Closed => self.closed(extent, began).await?,
            Pace::Open { per_second } => self.open(per_second, extent, began, random).await?,
        };
        let elapsed = began.elapsed();
        Ok(Turn { elapsed, planned: planned.unwrap_or(elapsed), answers: self.tally().answers() - before })
    }

    async fn closed(&self, extent: Extent, began: Instant) -> anyhow::Result<Option<Duration>> {
        let left = Arc::new(AtomicU64::new(match extent {
            Extent::Time(_) => u64::MAX,
            Extent::Requests(requests) => requests,
        }));
        let mut clients = JoinSet::new();
        for _ in 0..self.concurrency {
            let (lane, left) = (self.clone(), left.clone());
            clients.spawn(async move {
                let take = |left| u64::checked_sub(left, 1);
                // At least one request, so that a client that starts late takes part in the turn.
                let mut has_run = false;
                while !(has_run && matches!(extent, Extent::Time(length) if began.elapsed() >= length))
                    && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
                {
                    has_run = true;
                    if !lane.call(None).await {
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
            });
        }
        join(clients).await?;
        Ok(None)
    }

    /// Returns the time at which the last request was due.
    async fn open(
        &self,
        per_second: f64,
        extent: Extent,
        began: Instant,
        random: &mut Rng,
    ) -> anyhow::Result<Option<Duration>> {
        let arrivals = Arrivals::new(per_second, extent, random);
        // Requests not sent by then are dropped: the target is far behind.
        let patience = began + arrivals.expected() * 2 + Duration::from_secs(1);
        let (lane, runtime) = (self.clone(), tokio::runtime::Handle::current());
        // A dedicated thread: the runtime's timers have a resolution of a millisecond.
        let dispatch = tokio::task::spawn_blocking(move || {
            let permits = Arc::new(Semaphore::new(lane.concurrency as usize));
            let mut clients = JoinSet::new();
            let (mut unsent, mut last) = (0, Duration::ZERO);
            for at in arrivals {
                let due = began + at;
                last = at;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let permit = runtime.block_on(async {
                    tokio::time::timeout_at(patience.into(), permits.clone().acquire_owned()).await
                });
                let Ok(Ok(permit)) = permit else {
                    unsent += 1;
                    continue;
                };
                let lane = lane.clone();
                clients.spawn_on(
                    async move {
                        lane.call(Some(due)).await;
                        drop(permit);
                    },
                    &runtime,
                );
                while clients.try_join_next().is_some() {}
            }
            if unsent > 0 {
                lane.tally().failed("not sent: the target is far behind the rate", unsent);
            }
            (clients, last)
        });
        let (clients, last) = dispatch.await.context("the thread that sends requests ended")?;
        join(clients).await?;
        Ok(Some(last))
    }

    /// Sends one request. The latency counts from `due`, or from now. Returns false on failure.
    async fn call(&self, due: Option<Instant>) -> bool {
        let request = self.path.request(self.next.fetch_add(1, Ordering::Relaxed));
        let began = due.unwrap_or_else(Instant::now);
        let answer = self.path.ask(request).await;
        let latency = began.elapsed();
        let mut tally = self.tally();
        match &answer {
            Ok(answer) => tally.answered(latency, &answer.stages),
            Err(why) => tally.failed(why, 1),
        }
        answer.is_ok()
    }

    /// A poisoned lock is recovered: at worst one call is missing from the tally.
    pub(super) fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn join(mut clients: JoinSet<()>) -> anyhow::Result<()> {
    while let Some(client) = clients.join_next().await {
        client.context("a client ended")?;
    }
    Ok(())
}

/// Arrival times, relative to the start of the turn.
struct Arrivals {
    random: Rng,
    per_second: f64,
    extent: Extent,
    at: f64,
    count: u64,
}

impl Arrivals {
    fn new(per_second: f64, extent: Extent, random: &mut Rng) -> Self {
        Arrivals { random: random.fork(), per_second, extent, at: 0.0, count: 0 }
    }

    /// Expected time of all arrivals.
    fn expected(&self) -> Duration {
        match self.extent {
            Extent::Time(length) => length,
            Extent::Requests(requests) => {
                Duration::try_from_secs_f64(requests as f64 / self.per_second).unwrap_or(Duration::MAX / 8)
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.at -= (1.0 - self.random.f64()).ln() / self.per_second;
        self.count += 1;
        let goes_on = match self.extent {
            Extent::Time(length) => self.at < length.as_secs_f64(),
            Extent::Requests(requests) => self.count <= requests,
        };
        goes_on.then(|| Duration::try_from_secs_f64(self.at).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use infer_config::{Config, Origin};
    use infer_control::registry::Registry;

    use super::*;
    use crate::args::{BenchTask, PrefixCache};
    use crate::path::PathKind;
    use crate::stats::Row;
    use crate::work::Work;

    #[test]
    fn arrivals_follow_a_poisson_process() {
        let arrivals = |extent| Arrivals::new(1000.0, extent, &mut Rng::with_seed(5));
        let times: Vec<_> = arrivals(Extent::Time(Duration::from_secs(20))).collect();
        // A Poisson process: 20,000 arrivals, give or take five deviations of 141.
        assert!((19_300..20_700).contains(&times.len()), "{}", times.len());
        assert!(
            times.windows(2).all(|pair| pair[0] <= pair[1])
                && times[times.len() - 1] < Duration::from_secs(20)
        );
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        // The standard deviation of a Poisson process's gaps equals their mean.
        let spread = crate::stats::deviation(&gaps) * 1000.0;
        assert!((0.9..1.1).contains(&spread), "{spread}");
        assert_eq!(arrivals(Extent::Requests(37)).count(), 37);
        assert_eq!(arrivals(Extent::Requests(3)).collect::<Vec<_>>(), &times[..3]);
    }

    #[tokio::test]
    async fn latency_counts_from_the_scheduled_time() {
        let config = "[models.m]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n";
        let registry = Registry::load(Config::parse(config, &Origin::Builtin).unwrap()).unwrap();
        let model = registry.models["m"].clone();
        let work = Work::new(BenchTask::Tensor, 1, Some(model.card()), false, None).unwrap();
        let path = Path {
            path_kind: PathKind::Native(model),
            work: Arc::new(work),
            prefix_cache: PrefixCache::On,
            first: 0,
            turn: AtomicU64::new(0),
        };
        let tally = Arc::new(Mutex::new(Tally::new(Some(Duration::from_secs(600)))));
        let lane = Lane { path: Arc::new(path), concurrency: 1, tally, next: Arc::default() };
        // Due long ago, sent now.
        let due = Instant::now().checked_sub(Duration::from_secs(3000)).unwrap();
        assert!(lane.call(Some(due)).await && lane.call(None).await);
        let turn = Turn { elapsed: Duration::from_secs(1), planned: Duration::from_secs(1), answers: 2 };
        let row = Row::new("native", 1, &[turn], &lane.tally());
        assert!(row.p99_ms > 2_990_000.0 && row.p50_ms < 600_000.0, "{row:?}");
        assert_eq!(row.goodput_per_second, Some(1.0), "one of two answers was within the objective");
    }
}
