//! Attacks on the host's memory: linear memory, and objects that the host holds for the guest.

use std::hint::black_box;

use guest_sdk::bindings::wasi::config::store;
use guest_sdk::bindings::wasi::nn::graph;
use guest_sdk::nn::{Tensor, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

use crate::models::{model, refusal};

const MIB: usize = 1 << 20;

/// Allocates memory until it is refused, and writes to all of it.
pub(crate) fn allocate(_: &Settings) -> Result<String, Fault> {
    let mut hoard = Vec::new();
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            return Ok(format!("refused after {} MiB", hoard.len()));
        }
        block.resize(MIB, 0xa5_u8);
        hoard.push(black_box(block));
    }
}

/// Creates many tensors in the host from one small buffer.
pub(crate) fn hoard_tensors(_: &Settings) -> Result<String, Fault> {
    const TENSORS: usize = 100_000;
    let data = vec![0; MIB];
    let hoard: Vec<_> = (0..TENSORS).map(|_| Tensor::new(&[MIB as u32], TensorType::U8, &data)).collect();
    Ok(format!("the host holds {} MiB", hoard.len()))
}

/// Creates many host objects without bytes.
pub(crate) fn hoard_handles(_: &Settings) -> Result<String, Fault> {
    const TENSORS: usize = 10_000_000;
    let mut hoard = Vec::new();
    for _ in 0..TENSORS {
        hoard.push(Tensor::new(&[], TensorType::U8, &[]));
    }
    Ok(format!("the host holds {} empty tensors", hoard.len()))
}

/// Creates many contexts of a model, and runs none of them.
pub(crate) fn hoard_contexts(settings: &Settings) -> Result<String, Fault> {
    const CONTEXTS: usize = 1_000_000;
    let Ok(graph) = graph::load_by_name(model(settings)) else { return Ok("there is no model".to_owned()) };
    let mut hoard = Vec::new();
    for _ in 0..CONTEXTS {
        hoard.push(graph.init_execution_context());
    }
    Ok(format!("the host holds {} contexts", hoard.len()))
}

/// Requests a setting with a key larger than all settings.
pub(crate) fn long_key(_: &Settings) -> Result<String, Fault> {
    Ok(format!("the setting is {:?}", store::get(&"k".repeat(8 * MIB))))
}

/// Writes a line too long for any log.
pub(crate) fn long_line(_: &Settings) -> Result<String, Fault> {
    log::error(&"x".repeat(8 * MIB));
    Ok("wrote 8 MiB".to_owned())
}

/// Requests a model by a name that would fill a log and an error message.
pub(crate) fn long_name(_: &Settings) -> Result<String, Fault> {
    Ok(refusal(graph::load_by_name(&"\u{1f600}".repeat(4 * MIB))))
}

/// Creates a tensor with more axes than bytes.
pub(crate) fn many_dimensions(_: &Settings) -> Result<String, Fault> {
    let tensor = Tensor::new(&vec![1; 4 * MIB], TensorType::U8, &[0]);
    Ok(format!("the host holds a tensor of {} axes", tensor.dimensions().len()))
}
