//! `infer serve`: serve the configured components until a signal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use infer_config::{Address, Config};
use infer_control::live::Live;
use infer_control::registry::Registry;
use infer_control::watch;
use infer_server::abort::Abort;
use infer_server::serve;
use infer_server::serve::Listeners;
use infer_server::serve::tls::Tls;
use infer_server::service::Service;
use infer_server::threads::block_on;
use infer_server::upstream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cli::Serve;

/// Time for models to end computations whose requests are gone.
const UNLOAD: Duration = Duration::from_secs(5);

/// File descriptors reserved for models, libraries, the log and the runtimes.
const OTHER_FILES: u64 = 128;

pub(super) fn run(path: Option<PathBuf>, arguments: &Serve) -> anyhow::Result<()> {
    let listen = arguments.listen.clone();
    let config = read(path.as_deref(), listen.as_ref())?;
    block_on(async {
        // Bind first, so that an address in use is reported before any model is loaded.
        let listeners = Listeners::bind(&config.server).await?;
        let began = Instant::now();
        let registry = Arc::new(tokio::task::spawn_blocking(|| Registry::load(config)).await??);
        announce(&registry, &listeners, began)?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
        let tls = listeners.tls().cloned();
        let service = Service::new(
            registry,
            listeners.admin_address(),
            Some(Box::new(move || read(path.as_deref(), listen.as_ref()))),
        );
        let reloads = [
            Abort(tokio::spawn(reload_on_hangup(service.live().clone(), tls, hangup))),
            Abort(tokio::spawn(watch::watch(service.live().clone()))),
            Abort(tokio::spawn(watch::unload_idle(service.live().clone()))),
        ];
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        serve::run(service.clone(), listeners, stop).await.context("the listener failed")?;
        drop(reloads);
        service.unload(UNLOAD).await;
        info!("stopped");
        Ok(())
    })?
}

/// The configuration with the overrides of the command line.
fn read(path: Option<&Path>, listen: Option<&Address>) -> anyhow::Result<Config> {
    let mut config = Config::load(path)?;
    if let Some(listen) = listen {
        config.server.listen = listen.chosen();
        if let Err(why) = config.server.check_access(listen, config.keys.is_empty()) {
            bail!("`--listen` {why}");
        }
    }
    upstream::check(&config)?;
    raise_file_limit(&mut config);
    Ok(config)
}

/// Reloads the certificate and the configuration at each SIGHUP.
async fn reload_on_hangup(live: Arc<Live>, tls: Option<Arc<Tls>>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        if let Some(tls) = tls.clone() {
            let _ = tokio::task::spawn_blocking(move || tls.reload_and_log()).await;
        }
        // The reload logs its own failure.
        let _ = live.reload().await;
    }
}

/// Raises the limit of file descriptors for the configured connections, or lowers the limit of
/// connections to fit.
fn raise_file_limit(config: &mut Config) {
    let upstreams: usize = config.upstreams.values().map(|upstream| upstream.connections).sum();
    let server = &mut config.server;
    let others = OTHER_FILES.saturating_add(upstreams as u64);
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let needed = (server.connections.max_connections as u64).saturating_add(others);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < needed {
        let raised = Rlimit { current: Some(needed.min(maximum)), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            current = needed.min(maximum);
        }
    }
    if current < needed {
        let max = current.saturating_sub(others).max(current / 2).max(1) as usize;
        warn!(
            "`connections` is {}, and this process may open {current} files (`ulimit -n`); the server accepts {max} connections",
            server.connections.max_connections
        );
        server.connections.max_connections = max;
    }
}

fn announce(registry: &Registry, listeners: &Listeners, began: Instant) -> anyhow::Result<()> {
    info!(backend = registry.runtime.backend(), "{}", registry.runtime.describe());
    for loaded in registry.components.values() {
        let component = &loaded.component;
        if let Some(route) = &loaded.route {
            let models: Vec<_> = component.models().values().map(|model| model.name()).collect();
            info!(route, component = component.name(), models = models.join(","), "serving");
        }
    }
    let url = listeners.url().context("the listener has no address")?;
    let server = &registry.config.server;
    if !registry.config.keys.is_empty() {
        info!(keys = registry.config.keys.len(), "requests require a configured API key");
        if server.tls.is_none() && !server.listen.ip().is_loopback() {
            warn!(
                "keys are sent unencrypted: [server.tls] is not set, and other machines can reach `listen`"
            );
        }
    } else if server.trusted_network {
        warn!("no API key is configured, and `trusted_network` is set: all clients are permitted");
    } else {
        info!("no API key is configured: only clients on this machine are permitted");
    }
    if let Some(path) = &server.unix_socket {
        info!("listening on {}", path.display());
    }
    if let Some(address) = listeners.admin_address() {
        info!("the admin endpoints are on http://{address}");
    }
    let load_ms = began.elapsed().as_millis() as u64;
    info!(load_ms, config = %registry.config.origin, "listening on {url}");
    Ok(())
}
