//! The host's side of `wit/`, generated: the imports once, then one module a world for its exports.
#![expect(missing_docs, unreachable_pub, reason = "generated from wit/, where the documentation is")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "guest",
    with: {
        "wasi:nn/tensor.tensor": crate::nn::HostTensor,
        "wasi:nn/graph.graph": crate::nn::HostGraph,
        "wasi:nn/inference.graph-execution-context": crate::nn::HostContext,
        "wasi:nn/errors.error": crate::nn::HostError,
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
                    "wasi:nn": super::wasi::nn,
                    "wasi:config": super::wasi::config,
                    "infer:guest/types": super::infer::guest::types,
                    "infer:guest/log": super::infer::guest::log,
                    "infer:guest/notes": super::infer::guest::notes,
                },
                exports: { default: async },
            });
        }
    };
}

world!(moderator, "moderator");
world!(classifier, "classifier");
world!(predictor, "predictor");
