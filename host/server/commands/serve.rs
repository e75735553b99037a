//! `infer serve`

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::app::App;
use crate::cli::Serve;
use crate::config::{Config, ServerConfig};
use crate::serve::{self, Abort, Listeners};

/// How long models may take to end the computations that nobody waits for any more.
const UNLOAD: Duration = Duration::from_secs(5);

/// Descriptors beside those of connections: models, libraries, the log, the runtimes.
const OTHER_FILES: u64 = 128;

pub(super) fn run(mut config: Config, arguments: &Serve) -> anyhow::Result<()> {
    if let Some(listen) = arguments.listen {
        config.server.listen = listen;
        if let Err(why) = config.server.admits(listen, config.keys.is_empty()) {
            bail!("`--listen` {why}");
        }
    }
    super::block_on(async {
        raise_file_limit(&mut config.server);
        // Bound first: a taken address is known before any model is loaded.
        let listeners = Listeners::bind(&config.server).await?;
        let began = Instant::now();
        let app = Arc::new(tokio::task::spawn_blocking(|| App::load(config)).await??);
        announce(&app, &listeners, began)?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let hangup = reload_on_hangup(&listeners)?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        serve::run(app.clone(), listeners, stop).await.context("the listener failed")?;
        drop(hangup);
        unload(app).await;
        info!("stopped");
        Ok(())
    })?
}

/// Read the certificate again at SIGHUP. Without one the signal means what it always does: the terminal has gone.
fn reload_on_hangup(listeners: &Listeners) -> anyhow::Result<Option<Abort<()>>> {
    let Some(tls) = listeners.tls().cloned() else { return Ok(None) };
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let reload = async move {
        while hangup.recv().await.is_some() {
            let tls = tls.clone();
            let _ = tokio::task::spawn_blocking(move || tls.reload_and_log()).await;
        }
    };
    Ok(Some(Abort(tokio::spawn(reload))))
}

/// End the models' threads, and wait for them: a computation under way holds memory that the model's end unmaps.
async fn unload(app: Arc<App>) {
    let began = Instant::now();
    let mut app = Some(app);
    // What was dropped on other threads lets go of the models in its own time.
    while let Some(shared) = app.take() {
        match Arc::try_unwrap(shared) {
            Ok(own) => {
                let unloading = tokio::task::spawn_blocking(move || drop(own));
                if tokio::time::timeout(UNLOAD, unloading).await.is_err() {
                    warn!("a model still computes; it is not waited for");
                }
            }
            Err(_) if began.elapsed() > UNLOAD => warn!("a request still runs; it is not waited for"),
            Err(shared) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                app = Some(shared);
            }
        }
    }
}

/// Let the process have as many descriptors as it may, and take no more connections than that is enough for.
fn raise_file_limit(server: &mut ServerConfig) {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let wanted = (server.connections.most as u64).saturating_add(OTHER_FILES);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < wanted {
        let raised = Rlimit { current: Some(wanted.min(maximum)), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            current = wanted.min(maximum);
        }
    }
    if current < wanted {
        let most = current.saturating_sub(OTHER_FILES).max(current / 2).max(1) as usize;
        warn!(
            "`connections` is {}, and this process may have {current} files open (`ulimit -n`): {most} connections are taken",
            server.connections.most
        );
        server.connections.most = most;
    }
}

fn announce(app: &App, listeners: &Listeners, began: Instant) -> anyhow::Result<()> {
    info!(backend = app.runtime.backend(), "{}", app.runtime.describe());
    for policy in app.components.values() {
        let component = &policy.component;
        if let Some(route) = &policy.route {
            let models: Vec<_> = component.models().values().map(|model| model.name()).collect();
            info!(route, component = component.name(), models = models.join(","), "serving");
        }
    }
    let url = listeners.url().context("the listener has no address")?;
    let server = &app.config.server;
    if !app.config.keys.is_empty() {
        info!(keys = app.config.keys.len(), "requests need one of the configured keys");
        if server.tls.is_none() && !server.listen.ip().is_loopback() {
            warn!(
                "keys are sent in clear: there is no [server.tls], and `listen` is reached from other machines"
            );
        }
    } else if server.trusted_network {
        warn!("no key is configured, and `trusted_network` is set: whoever reaches the server may use it");
    } else {
        info!("no key is configured: this machine's own programs are answered, and nobody else");
    }
    if let Some(path) = &server.unix_socket {
        info!("listening on {}", path.display());
    }
    if let Some(address) = listeners.admin_address() {
        info!("the operator's own endpoints are on http://{address}");
    }
    let load_ms = began.elapsed().as_millis() as u64;
    info!(load_ms, config = %app.config.origin, "listening on {url}");
    Ok(())
}
