//! What a component's start costs, measured: compiling it, and reading what was compiled.

use std::time::{Duration, Instant};

use wasmtime::component::Component as Compiled;

use crate::error::LoadError;
use crate::sandbox::Sandbox;

/// What a start costs.
#[derive(Clone, Copy, Debug)]
pub struct StartCost {
    /// From a component's bytes to machine code.
    pub compile: Duration,
    /// Reading that code again: what a start costs where it was kept.
    pub deserialize: Duration,
}

impl Sandbox {
    /// Compile the component called `name` anew, and read the outcome again; neither is used.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component that compiles.
    pub fn start_cost(&self, name: &str, bytes: &[u8]) -> Result<StartCost, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Compile {
            component: name.to_owned(),
            message: format!("{error:#}"),
        };
        let began = Instant::now();
        let compiled = Compiled::from_binary(&self.engine, bytes).map_err(failed)?;
        let compile = began.elapsed();
        let kept = compiled.serialize().map_err(failed)?;
        let began = Instant::now();
        // SAFETY: the bytes are what `serialize` gave just now, on this engine, and nobody else has
        // had them.
        let read = unsafe { Compiled::deserialize(&self.engine, &kept) }.map_err(failed)?;
        let deserialize = began.elapsed();
        drop(read);
        Ok(StartCost { compile, deserialize })
    }
}
