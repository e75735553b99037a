//! Finds the guest components that the program embeds.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

const GUESTS: [&str; 3] = ["classify.wasm", "moderate.wasm", "predict.wasm"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=INFER_GUESTS");
    let Some(folder) = guests() else {
        println!(
            "cargo::error=the guest components {GUESTS:?} are not built: run `make guests` first (or set INFER_GUESTS \
             to the folder that holds them)"
        );
        return ExitCode::FAILURE;
    };
    for guest in GUESTS {
        println!("cargo::rerun-if-changed={}", folder.join(guest).display());
    }
    println!("cargo::rustc-env=INFER_GUESTS={}", folder.display());
    ExitCode::SUCCESS
}

/// INFER_GUESTS, or the folder `guests` in the target folder, which is an ancestor of OUT_DIR.
fn guests() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| GUESTS.iter().all(|guest| folder.join(guest).is_file());
    if let Some(folder) = env::var_os("INFER_GUESTS") {
        return Some(PathBuf::from(folder)).filter(complete);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    out.ancestors().map(|folder| folder.join("guests")).find(complete)
}
