//! Fixed limits of pulls and imports.

use std::time::Duration;

/// Maximum number of connections per pull; each resumes where the last one ended. Ends a pull from
/// a server that always disconnects.
pub(crate) const MAX_ATTEMPTS: usize = 5;

/// Maximum number of redirects in a row. Ends a redirect loop.
pub(crate) const MAX_REDIRECTS: usize = 8;

/// Maximum size of the head of a response, in bytes. Protects memory from an endless head.
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;

/// Maximum size of the hub's token file, in bytes. Protects memory from a wrong file.
pub(crate) const MAX_TOKEN_BYTES: u64 = 4 << 10;

/// Maximum time without data before a source is abandoned. Ends a pull from a server that hangs.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Minimum number of bytes in each [`MAX_SILENCE`]; a slower source is abandoned.
pub(crate) const MIN_BYTES_PER_SILENCE: u64 = 16 << 10;

/// Minimum free space that a download leaves on the disk, in bytes. Protects other programs on the
/// same disk.
pub(crate) const MIN_FREE_BYTES: u64 = 64 << 20;

/// Maximum size of the record of fetched packages, in bytes; a longer one is invalid. Protects
/// memory from a wrong file.
pub(crate) const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Maximum length of pip's messages that are stored, in bytes, from the end. Protects memory from
/// endless output.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Maximum size of a wheel beyond its part of the model's file and 1/64 of it, in bytes. Ends the
/// download of an endless package.
pub(crate) const MAX_WHEEL_OVERHEAD_BYTES: u64 = 512 << 10;

/// Maximum time for pip's last messages after its process group has ended. Ends the wait for a
/// process that has left the group.
pub(crate) const MAX_PIPE_TIME: Duration = Duration::from_secs(2);

/// Maximum nesting of folders in the scratch folder, which earlier versions nested. Bounds
/// recursion.
pub(crate) const MAX_SCRATCH_LEVELS: usize = 6;

/// Maximum size of a JSON file of an export besides its tokenizer, in bytes; the largest, the
/// settings of tokenizers, have less than 2 MB. Protects memory from a wrong file.
pub(crate) const MAX_SETTINGS_BYTES: u64 = 8 << 20;

/// Maximum size of an export's tokenizer, in bytes, as the engine reads it.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 40 << 20;

/// Maximum size of an export's model file and of each file with its data, in bytes, as the engine
/// reads them.
pub(crate) const MAX_EXPORT_BYTES: u64 = i32::MAX as u64;

/// Maximum number of data files of an export; real ones have one. Bounds the files that an import
/// opens.
pub(crate) const MAX_DATA_FILES: usize = 64;

/// Maximum number of labels of an imported model. Guests read all of them for each request.
pub(crate) const MAX_LABELS: usize = 1_024;

/// Maximum length of an imported label, in bytes. Bounds tables and messages.
pub(crate) const MAX_LABEL_BYTES: usize = 256;

/// Maximum number of tokens that an imported model reads at once, as the engine reads them.
pub(crate) const MAX_IMPORTED_TOKENS: usize = 8_192;

/// Maximum time of the first run of an imported model, which becomes its self-test.
pub(crate) const MAX_FIRST_RUN_TIME: Duration = Duration::from_secs(120);

/// Maximum size of the header of a safetensors file, in bytes; that of a large encoder has 30 KB.
/// Protects memory from a wrong file.
pub(crate) const MAX_SAFETENSORS_HEADER_BYTES: u64 = 4 << 20;

/// Maximum number of tokens of a converted encoder; BERT and MPNet have 512. Bounds the table of
/// distances in the file.
pub(crate) const MAX_CONVERTED_TOKENS: usize = 512;

/// Maximum number of axes of a tensor in a safetensors file; those of encoders have two. Bounds
/// messages.
pub(crate) const MAX_TENSOR_AXES: usize = 8;
