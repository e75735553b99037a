//! `infer reload`, and other requests to the admin listener of a running server.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use infer_config::{Config, Resolved};
use infer_control::live::Report;
use infer_control::versions::Versions;
use infer_server::routes::admin::{RELOAD, STATE, VERSIONS};
use infer_server::threads::block_on;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Admin;
use crate::limits::{MAX_QUERY_TIME, MAX_RELOAD_TIME, MAX_RESPONSE_BYTES};

pub(super) fn reload(config: &Config, arguments: &Admin, out: &mut impl Write) -> anyhow::Result<()> {
    let report = serve_changes(address(config, arguments)?)?;
    if !report.applied {
        writeln!(out, "nothing has changed")?;
        return Ok(());
    }
    for change in &report.changes {
        writeln!(out, "{change}")?;
    }
    let loaded = [report.models, report.components].concat();
    let loaded = if loaded.is_empty() { "nothing".to_owned() } else { loaded.join(", ") };
    writeln!(out, "\nlive after {} ms; loaded: {loaded}", report.took_ms)?;
    Ok(())
}

/// True if something listens at `address`.
pub(super) fn is_running(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, MAX_QUERY_TIME).is_ok()
}

/// Reloads the configuration of the server at `address`.
pub(super) fn serve_changes(address: SocketAddr) -> anyhow::Result<Report> {
    block_on(ask(address, Method::POST, RELOAD, MAX_RELOAD_TIME))?
}

/// The running server's comparison of its models with their next versions.
pub(super) fn versions(config: &Config, arguments: &Admin) -> anyhow::Result<Vec<Versions>> {
    let address = address(config, arguments)?;
    block_on(ask(address, Method::GET, VERSIONS, MAX_QUERY_TIME))?
}

/// The running server's resolved configuration.
pub(super) fn state(config: &Config, arguments: &Admin) -> anyhow::Result<Resolved> {
    let address = address(config, arguments)?;
    block_on(ask(address, Method::GET, STATE, MAX_QUERY_TIME))?
}

fn address(config: &Config, arguments: &Admin) -> anyhow::Result<SocketAddr> {
    arguments.admin_address(config).with_context(|| {
        format!(
            "`admin_listen` is not set in {}; set it under [server] and restart the server, or pass `--admin ADDRESS:PORT`; SIGHUP reloads without it",
            config.origin
        )
    })
}

async fn ask<T: DeserializeOwned>(
    address: SocketAddr,
    method: Method,
    path: &str,
    time: Duration,
) -> anyhow::Result<T> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.with_context(|| {
            format!(
                "no server answers at `{address}`; expected the `admin_listen` address of a running server"
            )
        })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
        let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the response was interrupted: {error}"))?.to_bytes();
        if !status.is_success() {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            let said = answer["error"]["message"].as_str().unwrap_or("without a message");
            bail!("the server at `{address}` returned {}: {said}", status.as_u16());
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("`{path}` at `{address}` returned an unexpected response"))
    };
    timeout(time, exchange).await.with_context(|| format!("`{address}` did not answer in time"))?
}
