//! SHA-256 of files.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Bytes of a file that are in memory while it is hashed.
const HASH_BYTES: usize = 1 << 20;

/// SHA-256 of the rest of `file`, read in pieces.
pub(super) fn sha256(file: &mut impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; HASH_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
