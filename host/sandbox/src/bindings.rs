//! The host's side of `wit/`: generated bindings, and the host's types for wasi:nn resources.
//!
//! The imports are generated once; each world adds a module for its exports.
#![expect(missing_docs, unreachable_pub, reason = "generated from wit/, where the documentation is")]

use std::sync::Arc;

use infer_engine::{Context, Model};

use self::wasi::nn::errors::ErrorCode;
use self::wasi::nn::tensor::TensorType;

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "guest",
    with: {
        "wasi:nn/tensor.tensor": crate::bindings::HostTensor,
        "wasi:nn/graph.graph": crate::bindings::HostGraph,
        "wasi:nn/inference.graph-execution-context": crate::bindings::HostContext,
        "wasi:nn/errors.error": crate::bindings::HostError,
    },
    imports: {
        "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
        default: trappable,
    },
});

macro_rules! world {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wasmtime::component::bindgen!({
                path: "../../wit",
                world: $world,
                with: {
                    "wasi:nn": crate::bindings::wasi::nn,
                    "wasi:config": crate::bindings::wasi::config,
                    "infer:guest/types": crate::bindings::infer::guest::types,
                    "infer:guest/log": crate::bindings::infer::guest::log,
                    "infer:guest/notes": crate::bindings::infer::guest::notes,
                    "infer:guest/spans": crate::bindings::infer::guest::spans,
                    "infer:guest/regions": crate::bindings::infer::guest::regions,
                    "infer:guest/explanations": crate::bindings::infer::guest::explanations,
                    "infer:guest/events": crate::bindings::infer::guest::events,
                },
                exports: { default: async },
            });
        }
    };
}

world!(moderator, "moderator");
world!(classifier, "classifier");
world!(predictor, "predictor");

/// A tensor as the guest passed it. `compute` checks the shape against the data, since a
/// constructor cannot return an error.
pub struct HostTensor {
    pub(crate) dimensions: Vec<u32>,
    pub(crate) ty: TensorType,
    /// Shared with the call that writes it into the guest's memory.
    pub(crate) data: Arc<Vec<u8>>,
}

impl HostTensor {
    /// Bytes that count against `tensor_bytes`.
    pub(crate) fn cost(&self) -> usize {
        self.data.len() + self.dimensions.len() * size_of::<u32>()
    }
}

/// A model that the component may use.
pub struct HostGraph(pub(crate) Arc<Model>);

/// A model ready to run; `None` while it computes.
pub struct HostContext(pub(crate) Option<Context>);

/// An error value that the guest can read.
pub struct HostError {
    pub(crate) code: ErrorCode,
    pub(crate) data: String,
}
