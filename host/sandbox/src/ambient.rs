//! The two imports beside models: settings and the log.

use std::borrow::Cow;

use tracing::{debug, error, info, warn};

use crate::bindings::infer::guest::log::{self, Level};
use crate::bindings::infer::guest::types;
use crate::bindings::wasi::config::store;
use crate::limits::Limits;
use crate::state::State;

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.grants.settings.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        let pairs = self.grants.settings.iter();
        Ok(Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}

/// An interface of types alone.
impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.log_lines += 1;
        if self.log_lines > self.grants.limits.log_lines {
            return Ok(());
        }
        let component = &*self.grants.component;
        let request_id = &*self.request_id;
        let line = one_line(&message[..message.floor_char_boundary(Limits::LOG_LINE_BYTES)]);
        match level {
            Level::Debug => debug!(target: "guest", component, request_id, "{line}"),
            Level::Info => info!(target: "guest", component, request_id, "{line}"),
            Level::Warn => warn!(target: "guest", component, request_id, "{line}"),
            Level::Error => error!(target: "guest", component, request_id, "{line}"),
        }
        Ok(())
    }
}

/// The text with its control characters spelt out, so that a guest cannot forge lines or steer a terminal.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("plain, ünïcode"), "plain, ünïcode");
        assert_eq!(one_line("a\nERROR forged\u{1b}[31m"), "a\\nERROR forged\\u{1b}[31m");
    }
}
