//! The two imports beside models: settings and the log.

use crate::bindings::infer::guest::log::{self, Level};
use crate::bindings::infer::guest::types;
use crate::bindings::wasi::config::store;
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
        self.journal.write(level, &message);
        Ok(())
    }
}
