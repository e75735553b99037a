//! State of a pull: the wanted file, its scratch folder, and the fetched file.

use std::fs::File;

use indicatif::ProgressBar;
use infer_engine::CardFile;
use infer_engine::files::Folder;

/// A pull in progress.
pub(super) struct Pull<'a> {
    pub(super) file: &'a CardFile,
    /// Folder of partial downloads; removed once the file is in place.
    pub(super) scratch: Folder,
    pub(super) bar: ProgressBar,
}

/// A complete file in the scratch folder.
pub(super) struct Fetched {
    pub(super) name: String,
    pub(super) file: File,
}
