//! Inspects the surroundings: the request, the environment, clocks, randomness, the network.

use std::fmt::Write as _;

use guest_sdk::bindings::handler::wasi::cli::{stderr, stdin, stdout};
use guest_sdk::bindings::handler::wasi::clocks::{monotonic_clock, wall_clock};
use guest_sdk::bindings::handler::wasi::random::random as randomness;
use guest_sdk::http::{HttpError, Method, Request, Respond, send};

use crate::exchange::{query, say};

/// The request as received: a line for the method and the path, one for each header field, the
/// body.
pub(crate) fn echo(request: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let body = request.read()?;
    let mut text = format!("{:?} {}\n", request.method, request.path);
    for (name, value) in &request.headers {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value));
    }
    text.push_str(&String::from_utf8_lossy(&body));
    say(respond, &text)
}

/// Standard input, and the two streams that go to the log.
pub(crate) fn around(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let input = stdin::get_stdin().blocking_read(100);
    let _ = stdout::get_stdout().blocking_write_and_flush(b"to standard output\nand its second line");
    let _ = stderr::get_stderr().blocking_write_and_flush(b"to standard \x1b[31merror\n");
    say(
        respond,
        &format!("stdin: {}", if input.is_ok_and(|read| !read.is_empty()) { "something" } else { "nothing" }),
    )
}

/// Both clocks, before and after some work.
pub(crate) fn clocks(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let read = || (wall_clock::now(), monotonic_clock::now());
    let (wall, monotonic) = read();
    monotonic_clock::subscribe_duration(5_000_000).block();
    let (wall_after, monotonic_after) = read();
    let nanoseconds = |time: wall_clock::Datetime| time.seconds * 1_000_000_000 + u64::from(time.nanoseconds);
    let passed = (nanoseconds(wall_after) - nanoseconds(wall), monotonic_after - monotonic);
    say(respond, &format!("{} {} {}", wall.seconds, passed.0, passed.1))
}

/// Random numbers.
pub(crate) fn random(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    say(respond, &format!("{} {:?}", randomness::get_random_u64(), randomness::get_random_bytes(8)))
}

/// Requests the URL of the query, and passes its response on.
pub(crate) fn fetch(request: &mut Request, respond: Respond) -> Result<(), HttpError> {
    match send(&Method::Get, query(request), &[], b"") {
        Ok(mut response) => {
            let mut writer = respond.begin(response.status, &[])?;
            while let Some(piece) = response.body.read()? {
                writer.write(&piece)?;
            }
            writer.finish()
        }
        Err(broken) => respond.send(502, "text/plain", broken.to_string().as_bytes()),
    }
}

/// Requests the URL of the query twenty times, and answers with the number of successes.
pub(crate) fn fetch_many(request: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let sent = (0..20).filter(|_| send(&Method::Get, query(request), &[], b"").is_ok()).count();
    say(respond, &sent.to_string())
}
