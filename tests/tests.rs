//! Integration tests: the whole program on real models, guests and photos.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails where it stands, and says what it skips"
)]

/// Servers in this process, and where the test data is.
mod harness;

/// `infer bench`.
mod bench;
/// Bodies as clients encode them.
mod bodies;
/// Cards: recipes for images, batches, bounds, and files without one.
mod cards;
/// `POST /moderate` with a language model behind the classifier.
mod cascade;
/// `POST /v1/chat/completions` and `POST /v1/completions`.
mod chat;
/// `POST /classify`.
mod classify;
/// What the command line prints and answers.
mod cli;
/// The same guests on wasmtime's own wasi-nn host.
mod conformance;
/// Connections: their number, their time limits, and what is sent that is no request.
mod connections;
/// Pages of other sites.
mod cors;
/// Long texts of clients in errors and in the log.
mod excerpts;
/// What the fuzz targets do, with the seeds that are kept.
mod fuzz;
/// The APIs that clients already speak: OpenAI's moderations, with our extensions, and
/// Perspective's analysis.
mod gateway;
/// Models and preprocessing against values of an independent implementation.
mod golden;
/// A short siege by hostile guests alone.
mod guest_siege;
/// Components that answer HTTP requests themselves.
mod handler;
/// Guests that attack the host.
mod hostile;
/// API keys, and rates.
mod keys;
/// Open Inference Protocol v2.
mod kserve;
/// `infer generate` and `infer score`.
mod language;
/// Guests in other languages than Rust.
mod languages;
/// What a request holds, and when it comes back; clients that take nothing, or send nothing.
mod leases;
/// TLS, the Unix socket, the operator's own port.
mod listeners;
/// Files that are no guests, and guests that no compiler would make.
mod malformed;
/// `POST /moderate`.
mod moderate;
/// `GET /openapi.json`, against the routes.
mod openapi;
/// More than the server can do, measured.
mod overload;
/// `infer plan`, and the memory contract.
mod plan;
/// `infer pull`, with the real pip client and a hub on this machine.
mod pull;
/// A changed configuration, while requests go on.
mod reload;
/// The server itself: health, ids, limits, shutdown.
mod serve;
/// Good traffic beside every attack at once, measured.
mod siege;
/// What the cache folder holds: models by their content, compiled components; and what a lock pins.
mod store;
/// Models and components swapped under load, measured.
mod swap;
/// Two versions of a model at once.
mod versions;
/// What is judged of animations and long images.
mod views;
/// Files that change by themselves, under `watch = true`.
mod watch;
