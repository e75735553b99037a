//! Fixed limits of components and self-tests.

use std::time::Duration;

use infer_engine::limits::Limit;

/// Maximum size of a component file, in bytes. The compiler takes many times a component's size.
pub(crate) const MAX_COMPONENT: Limit = Limit::new(64 << 20, "bytes");

/// Maximum size of a self-test's image, in bytes. Protects memory from a wrong file.
pub(crate) const MAX_TEST_IMAGE_BYTES: u64 = 32 << 20;

/// Maximum time of all tests of one model or component. Ends a reload to a version that hangs.
pub(crate) const MAX_SELF_TEST_TIME: Duration = Duration::from_secs(60);

/// Maximum number of names of events of a component in the metrics; further ones are `other`.
/// Bounds the memory of metrics.
pub(crate) const MAX_EVENT_NAMES: usize = 32;
