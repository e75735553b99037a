//! State of a pull: the wanted file, its scratch folder, and the fetched file.

use std::fs::File;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
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

/// Name of a download from the hub in the scratch folder. A file that was unpacked from an archive
/// has it as well: both are the same file.
pub(super) fn partial(sha256: &str) -> String {
    format!("hub-{sha256}")
}

/// Returns a progress bar for a file of `bytes` bytes, which draws only on a terminal.
pub(super) fn bar(name: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
