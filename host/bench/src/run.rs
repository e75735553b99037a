//! One run of `infer bench`.

use std::io::{Write, stderr};
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use infer_config::Config;
use infer_models::disk;
use serde_json::Value;

use crate::answer::Reply;
use crate::args::{Bench, BenchTask};
use crate::baseline::Condition;
use crate::load::{Extent, Lane, Pace};
use crate::machine::{Machine, Ticks};
use crate::path::{Path, PathKind};
use crate::random::seeded;
use crate::report::{LanguageShare, LoadFacts, Report, SandboxCost};
use crate::stats::{Row, Tally, Turn};
use crate::subject::Subject;
use crate::work::Work;
use crate::{advice, baseline, cold, dataset, language, machine, plot, print, quality, stats, subject};

/// Default duration of a row, and maximum of the default for all rows together.
const ROW: Duration = Duration::from_secs(4);
const ALL_ROWS: Duration = Duration::from_secs(20);

/// Default turns per row, and the minimum that still shows a spread.
const TURNS: u32 = 10;
const FEWEST_TURNS: u32 = 3;

/// Default time and maximum repeats of prefill and decode.
const LANGUAGE: language::Effort = language::Effort { time: Duration::from_secs(15), repeats: 5, all: false };

/// Maximum time for a dataset's labelled examples, unless -z sets a longer one.
const QUALITY: Duration = Duration::from_secs(60);

/// Runs the measurements of `arguments` and writes the report to `out`.
///
/// # Errors
///
/// If the arguments do not fit each other or the configuration, or a measurement fails.
pub fn run(config: Config, arguments: &Bench, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let earlier = arguments.baseline.as_deref().map(baseline::read).transpose()?;
    if let (Some(condition), None) =
        (arguments.fail_if.iter().find(|condition| condition.needs_baseline()), &earlier)
    {
        bail!("`--fail-if {condition}` compares with an earlier run; give its report with --baseline");
    }
    let mut report = infer_server::threads::block_on(measure(config, arguments))??;
    let found = serde_json::to_value(&report)?;
    if let Some(earlier) = &earlier {
        report.warnings.extend(baseline::differences(&found, earlier));
    }
    print::print(&report, arguments.output, out)?;
    out.flush()?;
    if let Some(place) = &arguments.plot {
        disk::replace(place, &plot::svg(&report))
            .with_context(|| format!("cannot write the plot `{}`", place.display()))?;
    }
    judge(&found, earlier.as_ref(), &arguments.fail_if)
}

/// Returns exit code 1 if a condition is met.
fn judge(found: &Value, earlier: Option<&Value>, conditions: &[Condition]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for condition in conditions {
        for met in condition.met(found, earlier)? {
            writeln!(stderr(), "failed: {met}")?;
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

async fn measure(config: Config, arguments: &Bench) -> anyhow::Result<Report> {
    let progress = progress();
    progress.set_message("loading");
    let subject = subject::load(config, arguments).await?;
    let task = subject.task;
    let card = subject.model.as_ref().map(|model| model.card());
    let read = |path| dataset::read(path, task, card, arguments.seed);
    let examples = arguments.dataset.as_deref().map(read).transpose()?;
    let work = Arc::new(Work::new(task, arguments.seed, card, subject.of_images, examples)?);
    let then = Ticks::now();

    let cold = match arguments.cold {
        true => Some(cold::measure(&subject, &work, &progress).await?),
        false => None,
    };
    let rows = measure_rows(&subject, &work, arguments, &progress).await?;
    let (mut prefill, mut decode, mut verdict) = (Vec::new(), Vec::new(), None);
    if let Some(model) = subject.model.as_ref().filter(|model| model.language().is_some()) {
        let effort = language::Effort {
            time: arguments.duration.map_or(LANGUAGE.time, |length| length * 3),
            repeats: arguments.repeats.unwrap_or(LANGUAGE.repeats),
            all: arguments.repeats.is_some(),
        };
        let mut random = seeded(arguments.seed, 1 << 63);
        let sessions = arguments.rate.map_or(&arguments.concurrency[..], |_| &[1]);
        (prefill, decode) = language::measure(model, sessions, &mut random, effort, &progress).await?;
        if task != BenchTask::Generate {
            verdict = Some(language::verdict(&subject, &work, effort, &progress).await?);
        }
    }
    let Measured { quality, language, unmatched } =
        measure_quality(&subject, &work, arguments, &progress).await?;
    progress.finish_and_clear();

    let mut warnings = advice::of_machine(then, Ticks::now(), subject.registry.is_some());
    warnings.extend(rows.warnings);
    warnings.extend(unmatched);
    Ok(Report {
        dummy: subject.dummy,
        host: Machine::here(),
        model: subject.facts,
        task: task.to_string(),
        target: arguments.target.to_string(),
        load: LoadFacts {
            rate: arguments.rate,
            seconds: rows.seconds,
            requests: arguments.requests,
            repeats: rows.repeats,
            seed: arguments.seed,
            slo_ms: arguments.slo_ms,
            prefix_cache: arguments.prefix_cache.to_string(),
            dataset: arguments.dataset.as_ref().map(|path| path.display().to_string()),
        },
        rows: rows.rows,
        sandbox: rows.sandbox,
        prefill,
        decode,
        verdict,
        cold,
        quality,
        language,
        rss_peak_bytes: machine::rss_peak_bytes(),
        warnings,
    })
}

/// Results of the rows.
struct Rows {
    rows: Vec<Row>,
    sandbox: Vec<SandboxCost>,
    warnings: Vec<String>,
    seconds: Option<f64>,
    repeats: u32,
}

async fn measure_rows(
    subject: &Subject,
    work: &Arc<Work>,
    arguments: &Bench,
    progress: &ProgressBar,
) -> anyhow::Result<Rows> {
    let slo = arguments.slo_ms.map(|ms| Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX));
    let mut lanes = Vec::new();
    for &concurrency in &arguments.concurrency {
        for path_kind in &subject.path_kinds {
            // Far apart, so that no row repeats the requests of another.
            let path = path(path_kind, work, arguments, (lanes.len() as u64 + 1) << 40);
            let tally = Arc::new(Mutex::new(Tally::new(slo)));
            lanes.push(Lane { path: Arc::new(path), concurrency, tally, next: Arc::new(AtomicU64::new(0)) });
        }
    }
    let pace = arguments.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second });
    let length = arguments.duration.unwrap_or_else(|| ROW.min(ALL_ROWS / lanes.len() as u32));
    let mut random = seeded(arguments.seed, 1 << 62);
    let mut latency = Duration::ZERO;
    for lane in &mut lanes {
        progress.set_message(format!("warming up `{}` at {}", lane.path.name(), lane.concurrency));
        // Caches, clock frequencies and the pool's slots settle before the measurement.
        let counted = std::mem::replace(&mut lane.tally, Arc::new(Mutex::new(Tally::new(None))));
        let concurrency = if arguments.rate.is_some() { 1 } else { lane.concurrency };
        let warming = Lane { concurrency, ..lane.clone() };
        let warm = warming.turn(Pace::Closed, Extent::Time(arguments.warmup), &mut random).await?;
        if warm.answers == 0 {
            let tally = lane.tally();
            let (why, _) = tally.worst_error().unwrap_or(("no request was sent", 0));
            bail!("`{}` at {} answered no request: {why}", lane.path.name(), lane.concurrency);
        }
        latency = latency.max(warm.elapsed * concurrency / u32::try_from(warm.answers).unwrap_or(u32::MAX));
        lane.tally = counted;
    }
    let repeats = turns(arguments, length, latency);
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); lanes.len()];
    let began = Instant::now();
    for repeat in 0..repeats {
        let extent = match arguments.requests {
            Some(requests) => Extent::Requests(share(requests, repeats, repeat)),
            None => Extent::Time(length / repeats),
        };
        // The order rotates, so that a drift of the machine favours no row.
        for index in (0..lanes.len()).map(|index| (index + repeat as usize) % lanes.len()) {
            let lane = &lanes[index];
            progress.set_message(format!(
                "turn {} of {repeats}: `{}` at {}, {:.0} s so far",
                repeat + 1,
                lane.path.name(),
                lane.concurrency,
                began.elapsed().as_secs_f64()
            ));
            turns[index].push(lane.turn(pace, extent, &mut random).await?);
        }
    }
    Ok(summary(subject, arguments, &lanes, &turns, length))
}

fn summary(
    subject: &Subject,
    arguments: &Bench,
    lanes: &[Lane],
    turns: &[Vec<Turn>],
    length: Duration,
) -> Rows {
    let guards: Vec<_> = lanes.iter().map(Lane::tally).collect();
    let figures = |((lane, turns), tally): ((&Lane, &Vec<Turn>), &std::sync::MutexGuard<'_, Tally>)| {
        Row::new(lane.path.name(), lane.concurrency, turns, tally)
    };
    let rows: Vec<_> = lanes.iter().zip(turns).zip(&guards).map(figures).collect();
    let measured: Vec<_> = rows
        .iter()
        .zip(turns)
        .zip(&guards)
        .map(|((row, turns), tally)| advice::Measured { row, turns, tally })
        .collect();
    let warnings = advice::of_rows(&measured, arguments.rate);
    let mut sandbox = Vec::new();
    let find = |path: &str, concurrency| {
        rows.iter().position(|row| row.path == path && row.concurrency == concurrency)
    };
    for &concurrency in &arguments.concurrency {
        let (native, guest) = (find("native", concurrency), find("sandbox", concurrency));
        if let (true, Some(native), Some(guest)) = (subject.same_work, native, guest)
            && let Some(instance_us) = guards[guest].instance_us()
        {
            let of_native = stats::ratio(&turns[guest], &turns[native]);
            sandbox.push(SandboxCost { concurrency, of_native, instance_us });
        }
    }
    let seconds = arguments.requests.is_none().then_some(length.as_secs_f64());
    let repeats = turns.first().map_or(0, |turns| turns.len() as u32);
    Rows { rows, sandbox, warnings, seconds, repeats }
}

fn path(path_kind: &PathKind, work: &Arc<Work>, arguments: &Bench, first: u64) -> Path {
    Path {
        path_kind: path_kind.clone(),
        work: work.clone(),
        prefix_cache: arguments.prefix_cache,
        first,
        turn: AtomicU64::new(0),
    }
}

/// Number of turns of a row: the requested number, or as many as leave several answers for each.
fn turns(arguments: &Bench, length: Duration, latency: Duration) -> u32 {
    let max_turns =
        arguments.requests.map_or(u32::MAX, |requests| u32::try_from(requests).unwrap_or(u32::MAX));
    let turns = arguments.repeats.unwrap_or_else(|| {
        let answers = match arguments.requests {
            Some(requests) => requests as f64,
            None => length.as_secs_f64() / latency.as_secs_f64().max(1e-9),
        };
        ((answers / 4.0) as u32).clamp(FEWEST_TURNS, TURNS)
    });
    turns.min(max_turns)
}

/// The size of turn number `turn`, if `requests` are split into `turns` nearly equal parts.
fn share(requests: u64, turns: u32, turn: u32) -> u64 {
    let (turns, turn) = (u64::from(turns), u64::from(turn));
    requests / turns + u64::from(turn < requests % turns)
}

/// Result of the labelled examples.
#[derive(Default)]
struct Measured {
    quality: Option<quality::Quality>,
    language: Option<LanguageShare>,
    /// A warning if some answers could not be compared.
    unmatched: Option<String>,
}

/// Sends each labelled example once, within the time limit, and compares the answers.
async fn measure_quality(
    subject: &Subject,
    work: &Arc<Work>,
    arguments: &Bench,
    progress: &ProgressBar,
) -> anyhow::Result<Measured> {
    let labelled = || work.examples().iter().filter(|example| example.label.is_some());
    let of = labelled().count();
    if of == 0 {
        return Ok(Measured::default());
    }
    // The native row of a classifier takes tensors, not examples.
    let path_kind = subject
        .path_kinds
        .last()
        .filter(|path_kind| subject.same_work || !matches!(path_kind, PathKind::Native(_)));
    let path_kind = path_kind
        .context("`--native` removes the paths that could answer the dataset; remove one of the two")?;
    let path = Arc::new(path(path_kind, work, arguments, 1 << 60));
    let until = Instant::now() + arguments.duration.map_or(QUALITY, |length| (length * 6).max(QUALITY));
    let at_once = arguments.concurrency.iter().copied().max().unwrap_or(1) as usize;
    let (mut points, mut errors) = (Vec::new(), 0);
    let mut share = LanguageShare::default();
    let mut unmatched: Vec<String> = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut waiting = labelled().cloned().enumerate();
    loop {
        while tasks.len() < at_once && Instant::now() < until {
            let Some((index, example)) = waiting.next() else { break };
            progress.set_message(format!("example {} of {of}", index + 1));
            let path = path.clone();
            tasks.spawn(async move { (path.ask(path.prepare(example.item.clone(), None)).await, example) });
        }
        let Some(answer) = tasks.join_next().await else { break };
        let (reply, example) = answer.context("a client ended")?;
        let Ok(Reply { stages, said }) = reply else {
            errors += 1;
            continue;
        };
        share.answers += 1;
        share.reached += u64::from(stages.tokens.prompt_tokens > 0);
        match said.map(|said| quality::point(&example, &said)) {
            Some(Ok(point)) => points.push(point),
            Some(Err(reason)) => unmatched.push(reason),
            None => {}
        }
    }
    let quality = quality::judge(&points, of, errors);
    let first = unmatched.first().map_or("no answer", String::as_str);
    ensure!(quality.is_some(), "no label of the dataset can be compared with an answer: {first}");
    let warning = format!("{} labels were not compared: {first}", unmatched.len());
    // A server does not say if it has a language model.
    let has_language = subject.path_kinds.iter().any(|path_kind| match path_kind {
        PathKind::Sandbox { loaded, .. } => {
            loaded.component.models().values().any(|model| model.language().is_some())
        }
        PathKind::Native(_) | PathKind::Http(_) => share.reached > 0,
    });
    let language = (subject.task == BenchTask::Moderate && has_language).then_some(share);
    Ok(Measured { quality, language, unmatched: (!unmatched.is_empty()).then_some(warning) })
}

/// A progress bar, if standard error is a terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_split_without_loss() {
        for (requests, turns) in [(10, 3), (3, 3), (100, 7), (1, 1)] {
            let shares: Vec<_> = (0..turns).map(|turn| share(requests, turns, turn)).collect();
            assert_eq!(shares.iter().sum::<u64>(), requests);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
    }
}
