//! The guest's side of `wit/`: generated bindings.
//!
//! The imports are generated once; each world adds a module for its exports.
#![expect(missing_docs, reason = "generated from wit/, where the documentation is")]

pub use wit_bindgen::rt;

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package infer:sdk;
        world imports {
            include infer:guest/guest@0.1.0;
            import infer:guest/types@0.1.0;
        }
    ",
    generate_all,
});

macro_rules! world {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                with: {
                    "wasi:nn/tensor@0.2.0-rc-2024-10-28": crate::bindings::wasi::nn::tensor,
                    "wasi:nn/errors@0.2.0-rc-2024-10-28": crate::bindings::wasi::nn::errors,
                    "wasi:nn/inference@0.2.0-rc-2024-10-28": crate::bindings::wasi::nn::inference,
                    "wasi:nn/graph@0.2.0-rc-2024-10-28": crate::bindings::wasi::nn::graph,
                    "wasi:config/store@0.2.0-rc.1": crate::bindings::wasi::config::store,
                    "infer:guest/log@0.1.0": crate::bindings::infer::guest::log,
                    "infer:guest/notes@0.1.0": crate::bindings::infer::guest::notes,
                    "infer:guest/spans@0.1.0": crate::bindings::infer::guest::spans,
                    "infer:guest/regions@0.1.0": crate::bindings::infer::guest::regions,
                    "infer:guest/explanations@0.1.0": crate::bindings::infer::guest::explanations,
                    "infer:guest/events@0.1.0": crate::bindings::infer::guest::events,
                    "infer:guest/types@0.1.0": crate::bindings::infer::guest::types,
                },
                generate_all,
                runtime_path: "guest_sdk::bindings::rt",
                pub_export_macro: true,
            });
        }
    };
}

world!(moderator, "moderator");
world!(classifier, "classifier");
world!(predictor, "predictor");
world!(handler, "handler");
