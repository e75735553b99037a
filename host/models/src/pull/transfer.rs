//! A pull in progress: the file that is fetched, its scratch folder, and the fetched file.

use std::fs::File;
use std::time::Duration;

use indicatif::ProgressBar;
use infer_engine::CardFile;
use infer_engine::files::Folder;

/// A pull under way: what is fetched, and where to.
pub(super) struct Pull<'a> {
    pub(super) file: &'a CardFile,
    /// What is half-done; gone once the file is in place.
    pub(super) scratch: Folder,
    pub(super) bar: ProgressBar,
}

/// A file in the scratch folder that is complete.
pub(super) struct Fetched {
    pub(super) name: String,
    pub(super) file: File,
}

/// How long a carrier may be silent before it is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
