//! Integration tests: the whole program with real models, guests and photos.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

/// Servers in this process, and paths of test data.
mod harness;

/// `infer bench`.
mod bench;
/// Encodings of request bodies.
mod bodies;
/// Cards: recipes for images, batches, limits, and models without a card.
mod cards;
/// `POST /moderate` with a language model behind the classifier.
mod cascade;
/// `POST /v1/chat/completions` and `POST /v1/completions`.
mod chat;
mod chat_guards;
/// `POST /classify`.
mod classify;
/// Output and exit codes of the command line.
mod cli;
/// The same guests on wasmtime's own wasi-nn host.
mod conformance;
/// Connections: their number, their timeouts, and input that is not a request.
mod connections;
/// Cross-origin requests.
mod cors;
/// Long client texts, in errors and in the log.
mod embeddings;
mod excerpts;
/// Words behind the scores, and scores of sentences.
mod explanations;
/// The fuzz targets on their stored seeds.
mod fuzz;
/// APIs of existing clients: OpenAI's moderations, with extensions, and Perspective's analysis.
mod gateway;
/// Models and preprocessing against values of an independent implementation.
mod golden;
/// A short siege by hostile guests only.
mod guest_siege;
/// Components that answer HTTP requests themselves.
mod handler;
/// Guests that attack the host.
mod hostile;
/// Texts in images.
mod image_texts;
/// `infer import`, and models of the hub.
mod import;
/// API keys and rate limits.
mod keys;
/// Open Inference Protocol v2.
mod kserve;
/// `infer generate` and `infer score`.
mod language;
/// Guests in languages other than Rust.
mod languages;
/// Leases of a request and their release; clients that read nothing, or send nothing.
mod leases;
/// TLS, the Unix socket, the admin listener.
mod listeners;
/// Files that are not guests, and guests that no compiler would produce.
mod malformed;
/// `POST /moderate`.
mod moderate;
/// `GET /openapi.json`, compared with the routes.
mod openapi;
/// Load above the server's capacity, measured.
mod overload;
/// `infer plan`, and the memory contract.
mod plan;
/// `infer pull`, with the real pip client and a hub on this machine.
mod pull;
/// Configuration reloads while requests are in flight.
mod reload;
/// The server itself: health, ids, limits, shutdown.
mod serve;
/// Good traffic beside every attack at once, measured.
mod siege;
/// Help, metrics and the OpenAPI document, compared with stored ones.
mod snapshots;
/// The cache folder: models by content hash, compiled components; and locks.
mod store;
/// Models and components swapped under load, measured.
mod swap;
/// Imported text models against values of an independent implementation.
mod text_models;
/// `infer train` and `infer calibrate`.
mod train;
/// Upstreams: forwarded requests, retries, and faults of every kind.
mod upstreams;
/// Two versions of a model at once.
mod versions;
/// Views of animations and long images.
mod views;
/// Changed files under `watch = true`.
mod watch;
