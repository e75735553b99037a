//! Fixed limits of the kernels.

/// Maximum number of features per head. Attention stores a query and its result in arrays of this
/// size.
pub(crate) const MAX_HEAD_DIM: usize = 256;
