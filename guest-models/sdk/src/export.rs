//! Macros that export a type as the guest of a component.

/// Exports a type that implements [`Moderator`](crate::Moderator) as the guest of this component.
#[macro_export]
macro_rules! export_moderator {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Moderator, $crate::bindings::moderator);
    };
}

/// Exports a type that implements [`Classifier`](crate::Classifier) as the guest of this component.
#[macro_export]
macro_rules! export_classifier {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Classifier, $crate::bindings::classifier);
    };
}

/// Exports a type that implements [`Predictor`](crate::Predictor) as the guest of this component.
#[macro_export]
macro_rules! export_predictor {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Predictor, $crate::bindings::predictor);
    };
}

/// Exports a type that implements [`http::Handler`](crate::http::Handler) as the guest of this
/// component.
#[macro_export]
macro_rules! export_handler {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::http::Handler, $crate::bindings::handler);
    };
}

/// Exports `$guest` from a WebAssembly module. Native linkers reject the symbol names of
/// components, so elsewhere the macro only checks that the type implements the trait.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($guest:ident, $world:path, $($bindings:tt)+) => {
        #[cfg(target_family = "wasm")]
        $($bindings)+::export!($guest with_types_in $($bindings)+);
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn implements<Guest: $world>() {}
            implements::<$guest>()
        };
    };
}
