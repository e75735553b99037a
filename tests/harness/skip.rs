//! Tests that cannot run on this machine, recorded for the end of `make test`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Records that the current test does not run, or not in full, for `reason`. `scripts/skipped.py`
/// prints the record.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    // nextest passes the name; otherwise the test's thread has it.
    let name = std::env::var("NEXTEST_TEST_NAME").ok();
    let name = name.as_deref().or(thread.name()).unwrap_or("a test");
    println!("{name} is skipped: {reason}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("`skipped` can be written");
    // One write, which is not mixed with those of other tests.
    file.write_all(format!("{name}\t{reason}\n").as_bytes()).expect("`skipped` can be written");
}
