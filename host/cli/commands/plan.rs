//! `infer plan`: predicted memory use of the configuration, as a table.

use std::io::Write;

use infer_config::Config;
use infer_control::plan::{Plan, mebibytes};
use infer_engine::{Runtime, RuntimeOptions};

use crate::cli::{Format, Output};

pub(super) fn run(config: &Config, arguments: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
    let plan = Plan::of(config, &runtime)?;
    if arguments.output == Format::Json {
        serde_json::to_writer_pretty(&mut *out, &plan)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<26} {:<42} {:>13} {:>13}", "PART", "WHAT", "EXPECTED", "AT MOST")?;
    for part in &plan.parts {
        let label = if part.mapped { format!("{} (page cache)", part.label) } else { part.label.clone() };
        let (bytes, max) = (mebibytes(part.bytes), mebibytes(part.max_bytes));
        writeln!(out, "{:<26} {label:<42} {bytes:>13} {max:>13}", part.subject)?;
    }
    let max: u64 = plan.parts.iter().map(|part| part.max_bytes).sum();
    writeln!(out, "{:<69} {:>13} {:>13}", "TOTAL", mebibytes(plan.bytes), mebibytes(max))?;
    match plan.contract_bytes {
        None => writeln!(out, "\nno `memory_bytes` under [server]: the memory of requests is unlimited")?,
        Some(contract) => writeln!(
            out,
            "\n`memory_bytes` {}: {} without requests, {} for them",
            mebibytes(contract),
            mebibytes(plan.standing_bytes),
            mebibytes(contract.saturating_sub(plan.standing_bytes))
        )?,
    }
    plan.admit(config)?;
    Ok(())
}
