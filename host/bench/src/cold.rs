//! Cost of a cold start: compiling the guest, loading compiled code, the first instance, and the
//! first answer.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::args::PrefixCache;
use crate::path::{Path, PathKind};
use crate::report::Cold;
use crate::subject::{self, Subject};
use crate::work::Work;

/// Measures a cold start. Call before any other request.
///
/// # Errors
///
/// If the guest's file cannot be read, or the first request fails.
pub(super) async fn measure(
    subject: &Subject,
    work: &Arc<Work>,
    progress: &ProgressBar,
) -> anyhow::Result<Cold> {
    progress.set_message("the first answer");
    let sandboxed = subject.path_kinds.iter().find(|path_kind| matches!(path_kind, PathKind::Sandbox { .. }));
    let path_kind =
        sandboxed.or(subject.path_kinds.first()).context("at least one path to the model exists")?.clone();
    let path = Path {
        path_kind: path_kind.clone(),
        work: work.clone(),
        prefix_cache: PrefixCache::On,
        first: 1 << 61,
        turn: AtomicU64::new(0),
    };
    let request = path.request(0);
    let began = Instant::now();
    let first =
        path.ask(request).await.map_err(anyhow::Error::msg).context("the first request had no answer")?;
    let first_inference_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut cold = Cold { compile_ms: None, deserialize_us: None, instantiate_us: None, first_inference_ms };
    cold.instantiate_us = first.stages.instance.map(|instance| instance.instantiate.as_secs_f64() * 1e6);
    if let (PathKind::Sandbox { loaded, .. }, Some(registry)) = (&path_kind, &subject.registry) {
        progress.set_message("compiling the guest");
        let bytes = subject::guest_bytes(registry, loaded)?;
        let cost = registry.sandbox.start_cost(loaded.component.name(), &bytes)?;
        cold.compile_ms = Some(cost.compile.as_secs_f64() * 1e3);
        cold.deserialize_us = Some(cost.deserialize.as_secs_f64() * 1e6);
    }
    Ok(cold)
}
