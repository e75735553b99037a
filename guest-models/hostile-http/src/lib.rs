//! A guest that attacks its host by HTTP, for tests. The last segment of the path names one of
//! [`ATTACKS`], and the query is its argument.

mod answers;
mod attacks;
mod exchange;
mod holds;
mod looks;

pub use attacks::{ATTACKS, Attack};

use attacks::Hostile;

guest_sdk::export_handler!(Hostile);
