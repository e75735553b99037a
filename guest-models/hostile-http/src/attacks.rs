//! The table of attacks, and the guest that runs one of them.

use guest_sdk::http::{Handler, HttpError, Request, Respond};

use crate::{answers, holds, looks};

/// An attack. It may never return.
pub type Attack = fn(&mut Request, Respond) -> Result<(), HttpError>;

/// All attacks by name.
pub const ATTACKS: [(&str, Attack); 22] = [
    ("silent", answers::silent),
    ("fail", answers::fail),
    ("informational", answers::informational),
    ("trap", answers::trap),
    ("trap-midway", answers::trap_midway),
    ("short", answers::short),
    ("unfinished", answers::unfinished),
    ("endless", answers::endless),
    ("slow", answers::slow),
    ("linger", answers::linger),
    ("forbidden-header", answers::forbidden_header),
    ("many-headers", answers::many_headers),
    ("echo", looks::echo),
    ("around", looks::around),
    ("clocks", looks::clocks),
    ("random", looks::random),
    ("fetch", looks::fetch),
    ("fetch-many", looks::fetch_many),
    ("random-bytes", holds::random_bytes),
    ("pollables", holds::pollables),
    ("print", holds::print),
    ("spin", holds::spin),
];

/// The guest.
pub(crate) struct Hostile;

impl Handler for Hostile {
    fn handle(mut request: Request, respond: Respond) {
        let name = request.path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let result = match ATTACKS.iter().find(|(candidate, _)| *candidate == name) {
            Some((_, attack)) => attack(&mut request, respond),
            None => respond.send(404, "text/plain", b"no such attack"),
        };
        if let Err(broken) = result {
            guest_sdk::log::warn(&format!("broken: {broken}"));
        }
    }
}
