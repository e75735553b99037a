//! Measures the start of a language model: `start FILE.gguf [CACHE_FOLDER]`. Run it twice to
//! compare the first start with later ones.
//!
//! Prints the time in milliseconds for the weights (header, hash) and for the load (tokenizer,
//! packing or mapping), the resident memory after both and at its peak, and the time for a short
//! prompt and one more token.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use infer_engine::{
    Model, ModelOptions, Onnxruntime, Params, Prompt, Request, Runtime, RuntimeOptions, Session,
};
use infer_engine::{WeightCache, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let file = arguments.next().ok_or("usage: start FILE.gguf [CACHE_FOLDER]")?;
    let cache = arguments.next().map(|folder| WeightCache { folder, rehash: false });
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off })?;

    let began = Instant::now();
    let weights = Weights::gguf(&file, cache.as_ref())?;
    println!("weights     {:>8.1} ms", ms(began));
    let loading = Instant::now();
    let model = Model::load(&runtime, "m", weights, &ModelOptions::default())?;
    println!("load        {:>8.1} ms", ms(loading));
    println!("ready       {:>8.1} ms", ms(began));
    let language = model.language().ok_or("the file is not a language model")?;
    println!("packed      {:?}", language.packed_file());
    memory()?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    for (what, prompt_tokens, max_tokens) in
        [("prompt", 128, 1), ("prompt", 128, 1), ("answer", 2, 32), ("answer", 2, 32)]
    {
        let tokens = (0..prompt_tokens).map(|index| 100 + index * 7 % 1000).collect();
        let request = Request {
            prompt: Prompt::Tokens(tokens),
            choices: None,
            params: Params { max_tokens, ..Params::default() },
        };
        let deadline = Instant::now() + Duration::from_secs(600);
        let component = std::sync::Arc::from(format!("{what}{:?}", began.elapsed()));
        let answer =
            runtime.block_on(language.run(&mut Session::new(&component), request, None, deadline))?;
        println!(
            "{what:<12}{:>8.1} ms for {prompt_tokens} tokens in, {max_tokens} out",
            answer.compute.as_secs_f64() * 1e3
        );
    }
    memory()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Prints the memory of this process in KiB, as the system reports it.
fn memory() -> Result<(), Box<dyn Error>> {
    let names = ["VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"];
    let status = std::fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))) {
        println!("{line}");
    }
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    for line in rollup
        .lines()
        .filter(|line| ["Pss:", "AnonHuge", "FilePmd"].iter().any(|name| line.starts_with(name)))
    {
        println!("{line}");
    }
    Ok(())
}
