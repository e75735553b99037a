//! Helpers of the attacks: the query of a request, and a text response.

use guest_sdk::http::{HttpError, Request, Respond};

/// The part of the path after `?`.
pub(crate) fn query(request: &Request) -> &str {
    request.path.split_once('?').map_or("", |(_, query)| query)
}

/// Answers with `text`.
pub(crate) fn say(respond: Respond, text: &str) -> Result<(), HttpError> {
    respond.send(200, "text/plain", text.as_bytes())
}
