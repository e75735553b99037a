//! `infer serve`

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::app::App;
use crate::cli::Serve;
use crate::config::Config;
use crate::serve;

pub(super) fn run(mut config: Config, arguments: &Serve) -> anyhow::Result<()> {
    if let Some(listen) = arguments.listen {
        config.server.listen = listen;
    }
    super::block_on(async {
        // Bound first: a taken address is known before any model is loaded.
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on `{listen}`; choose another with --listen or `listen` under [server]")
        })?;
        let began = Instant::now();
        let app = Arc::new(tokio::task::spawn_blocking(|| App::load(config)).await??);
        announce(&app, &listener, began)?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        serve::run(app, listener, stop).await.context("the listener failed")?;
        info!("stopped");
        Ok(())
    })?
}

fn announce(app: &App, listener: &TcpListener, began: Instant) -> anyhow::Result<()> {
    info!(backend = app.runtime.backend(), "{}", app.runtime.describe());
    for policy in app.components.values() {
        let component = &policy.component;
        if let Some(route) = &policy.route {
            let models: Vec<_> = component.models().values().map(|model| model.name()).collect();
            info!(route, component = component.name(), models = models.join(","), "serving");
        }
    }
    let address = listener.local_addr().context("the listener has no address")?;
    let load_ms = began.elapsed().as_millis() as u64;
    info!(load_ms, config = %app.config.origin, "listening on http://{address}");
    Ok(())
}
