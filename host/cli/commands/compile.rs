//! `infer compile`: compile the configured components, so that the first start loads machine code.

use std::io::Write;
use std::time::Instant;

use anyhow::Context as _;
use infer_config::Config;
use infer_control::component::component_bytes;
use infer_models::builtin;
use infer_sandbox::Sandbox;

pub(super) fn run(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let sandbox = Sandbox::new(&config.sandbox)?;
    for (name, component) in &config.components {
        let place = || component.at.to_string();
        let bytes = component_bytes(name, &component.source).with_context(place)?;
        let began = Instant::now();
        let cached = sandbox.compile_ahead(name, &bytes).with_context(place)?;
        let took = began.elapsed().as_millis();
        let Some(cached) = cached else {
            anyhow::bail!("component `{name}` compiles, but cannot be cached: {}", builtin::NO_CACHE);
        };
        let how = if cached.reused { "is cached and verified" } else { "is compiled" };
        writeln!(
            out,
            "component `{name}` {how} ({took} ms): {} bytes, `{}`",
            cached.bytes,
            cached.path.display()
        )?;
    }
    Ok(())
}
