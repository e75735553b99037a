//! Measured cost of starting a component: compiling it, and reading its machine code.

use std::time::{Duration, Instant};

use wasmtime::component::Component as Compiled;

use crate::error::LoadError;
use crate::sandbox::Sandbox;

/// Cost of starting a component.
#[derive(Clone, Copy, Debug)]
pub struct StartCost {
    /// Time to compile the component's bytes to machine code.
    pub compile: Duration,
    /// Time to read that code: the cost of a start with a cached component.
    pub deserialize: Duration,
}

impl Sandbox {
    /// Compiles the component called `name`, and reads the result; discards both.
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
        let code = compiled.serialize().map_err(failed)?;
        let began = Instant::now();
        // SAFETY: the bytes come from `serialize` just now, on this engine, and were not shared.
        let read = unsafe { Compiled::deserialize(&self.engine, &code) }.map_err(failed)?;
        let deserialize = began.elapsed();
        drop(read);
        Ok(StartCost { compile, deserialize })
    }
}
