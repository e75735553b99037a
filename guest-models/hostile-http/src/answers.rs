//! Missing and invalid answers.

use guest_sdk::bindings::handler::wasi::clocks::monotonic_clock;
use guest_sdk::http::{HttpError, Request, Respond};

use crate::exchange::query;

/// No answer.
#[expect(clippy::unnecessary_wraps, reason = "an attack's type")]
pub(crate) fn silent(_: &mut Request, _: Respond) -> Result<(), HttpError> {
    Ok(())
}

/// An error as the answer.
#[expect(clippy::unnecessary_wraps, reason = "an attack's type")]
pub(crate) fn fail(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.fail("it would not");
    Ok(())
}

/// A status that switches the protocol.
pub(crate) fn informational(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.begin(101, &[])?.finish()
}

pub(crate) fn trap(_: &mut Request, _: Respond) -> Result<(), HttpError> {
    panic!("gives up")
}

/// A head, a part of a body, a trap.
pub(crate) fn trap_midway(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.begin(200, &[])?.write(b"so far")?;
    panic!("gives up")
}

/// Less than the announced length.
pub(crate) fn short(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let mut writer = respond.begin(200, &[("content-length".to_owned(), b"100".to_vec())])?;
    writer.write(b"so far")?;
    writer.finish()
}

/// A body without its end.
pub(crate) fn unfinished(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.begin(200, &[])?.write(b"so far")
}

/// An endless body.
pub(crate) fn endless(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let mut writer = respond.begin(200, &[])?;
    loop {
        writer.write(&[b'x'; 4096])?;
    }
}

/// Three parts with pauses between them, in milliseconds from the query.
pub(crate) fn slow(request: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let pause = query(request).parse::<u64>().unwrap_or(100) * 1_000_000;
    let mut writer = respond.begin(200, &[])?;
    for piece in ["one ", "two ", "three"] {
        writer.write(piece.as_bytes())?;
        monotonic_clock::subscribe_duration(pause).block();
    }
    writer.finish()
}

/// A complete answer from an instance that does not return.
pub(crate) fn linger(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.send(200, "text/plain", b"answered")?;
    monotonic_clock::subscribe_duration(3_600_000_000_000).block();
    Ok(())
}

/// A header field that belongs to the connection.
pub(crate) fn forbidden_header(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    respond.begin(200, &[("transfer-encoding".to_owned(), b"chunked".to_vec())])?.finish()
}

/// More header fields than any client accepts.
pub(crate) fn many_headers(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let headers: Vec<_> = (0..100_000).map(|index| (format!("x-{index}"), vec![b'x'; 64])).collect();
    respond.begin(200, &headers)?.finish()
}
