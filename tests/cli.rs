use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{photos, repository};

/// Runs `infer` in `folder`.
fn infer(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).args(arguments).env_remove("INFER_CONFIG").env_remove("INFER_LOG");
    command.output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A folder with an infer.toml.
fn configured(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("infer.toml"), config).unwrap();
    folder
}

#[test]
fn check_reports_models_and_components() {
    let folder = tempfile::tempdir().unwrap();
    let output = infer(folder.path(), &["check"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for words in [
        "built-in configuration",
        "backend",
        "POST /moderate (moderator)",
        "text = moderation-encoder",
        "the configuration is valid",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}

#[test]
fn second_start_maps_packed_weights() {
    let folder = configured("[models.tiny]\nsource = \"tiny.gguf\"\n");
    let model = repository().join("tests/data/language/qwen2-q6_k.gguf");
    std::fs::copy(model, folder.path().join("tiny.gguf")).unwrap();
    let cache = folder.path().join("cache");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command.current_dir(&folder).arg("check").env_remove("INFER_CONFIG").env_remove("INFER_LOG");
        let output = command.env("INFER_CACHE", &cache).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    let packed = || {
        let files = std::fs::read_dir(cache.join("packed")).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "packed"))
            .collect::<Vec<_>>()
    };
    let first = check();
    let [file] = packed().try_into().unwrap();
    let mapped = format!("weights      mapped from {}", file.display());
    assert!(stdout(&first).contains(&mapped), "{}", stdout(&first));
    let modified = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let written = modified();
    assert!(stdout(&check()).contains(&mapped));
    assert_eq!(modified(), written, "not written again");

    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "half").unwrap();
    let damaged = check();
    let warning =
        format!("`{}` ends at byte 4, within its header; the model is packed again", file.display());
    assert!(stderr(&damaged).contains(&warning), "{}", stderr(&damaged));
    assert!(stdout(&damaged).contains(&mapped));

    std::fs::write(
        folder.path().join("infer.toml"),
        "[models.tiny]\nsource = \"tiny.gguf\"\npacked_cache = false\n",
    )
    .unwrap();
    std::fs::remove_dir_all(&cache).unwrap();
    assert!(stdout(&check()).contains("weights      packed in memory"));
    assert!(!cache.exists());
}

#[test]
fn configuration_mistakes_have_their_line() {
    let cases = [
        ("[server]\nlissen = 3\n", "infer.toml:2: unknown field `lissen`"),
        ("[server\n", "infer.toml:1: "),
        (
            "[models.a]\nsource = \"builtin:b\"\n",
            "infer.toml:2: model `a`: source `builtin:b` is not built in; expected `eff",
        ),
        ("[models.a]\nsource = \"nowhere\"\n", "infer.toml:2: model `a`: source `nowhere` does not exist"),
        (
            "[components.a]\nsource = \"a.wasm\"\n",
            "infer.toml:2: component `a`: source `a.wasm` does not exist",
        ),
        (
            "[components.a]\nsource = \"builtin:moderate\"\nmodels = { text = \"b\" }\n",
            "infer.toml:3: component `a`: model `b` (for the guest's `text`) is not configured",
        ),
        (
            "[components.a]\nsource = \"builtin:moderate\"\nroute = \"moderate\"\n",
            "infer.toml:3: component `a`: route is `moderate`, expected a path",
        ),
        (
            "[components.a]\nsource = \"builtin:moderate\"\nroute = \"/healthz\"\n",
            "infer.toml:3: component `a`: route `/healthz` is the server's own",
        ),
    ];
    for (config, words) in cases {
        let folder = configured(config);
        let output = infer(folder.path(), &["check"]);
        assert_eq!(output.status.code(), Some(2), "{config}");
        assert!(stderr(&output).contains(words), "{config}: {}", stderr(&output));
    }
}

#[test]
fn all_configuration_mistakes_are_reported_together() {
    let folder = configured("[models.a]\nsource = \"x\"\n[models.b]\nsource = \"y\"\nsessions = 0\n");
    let output = infer(folder.path(), &["check"]);
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("error: infer.toml:")), "{text}");
}

#[test]
fn file_that_differs_from_card_is_rejected() {
    let folder = configured("[models.mine]\nsource = \"mine\"\n");
    let mine = folder.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    for entry in std::fs::read_dir(repository().join("weights/toxic-bilstm")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, mine.join(path.file_name().unwrap())).unwrap();
    }
    assert!(infer(folder.path(), &["check"]).status.success());
    let mut bytes = std::fs::read(mine.join("model.onnx")).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(mine.join("model.onnx"), bytes).unwrap();
    let output = infer(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("infer.toml:2") && text.contains("model.onnx") && text.contains("sha256"),
        "{text}"
    );
}

#[test]
fn missing_models_are_listed_with_their_remedy() {
    let folder = configured("[models.judge]\nsource = \"builtin:qwen2.5-0.5b\"\n");
    let cache = folder.path().join("cache");
    let infer = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command.current_dir(folder.path()).args(arguments).env("INFER_CACHE", &cache).output().unwrap()
    };
    let output = infer(&["models"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let row = stdout(&output).lines().find(|line| line.starts_with("judge ")).unwrap();
    assert!(row.contains("builtin:qwen2.5-0.5b") && row.contains("not pulled"), "{row}");
    for name in ["phi3", "qwen2.5-1.5b", "smollm2"] {
        assert!(stdout(&output).contains(&format!("builtin:{name} ")), "{}", stdout(&output));
    }

    let output = infer(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let place = cache.join("models/qwen2.5-0.5b/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    for words in [
        "infer.toml:2: model `judge`: ",
        &format!("`{}` does not exist, expected 491400064 bytes with sha256 1d96", place.display()),
        "; run `infer pull qwen2.5-0.5b`, or put the file there by hand: it is `qwen2.5-coder-0.5b-instruct-q4_k_m.gguf` of",
    ] {
        assert!(stderr(&output).contains(words), "no `{words}` in {}", stderr(&output));
    }
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, "too short").unwrap();
    assert!(stderr(&infer(&["check"])).contains("is 9 bytes, its card says 491400064"));
    assert!(stdout(&infer(&["models"])).contains("damaged: "));
}

#[test]
fn missing_dummy_error_names_its_command() {
    let folder = configured("[models.dummy]\nsource = \"builtin:phi3-dummy\"\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    let output =
        command.current_dir(folder.path()).arg("check").env("INFER_CACHE", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not written yet: run `infer dummy phi3`"), "{}", stderr(&output));
}

#[test]
fn invalid_component_is_rejected() {
    let cases: [(&[u8], &str); 3] = [
        (b"not wasm", "does not start with the WebAssembly magic number"),
        (b"\0asm\x01\0\0\0", "is a core module"),
        (b"\0asm\x0d\0\x01\0", "exports nothing, expected one of `infer:guest/moderation`"),
    ];
    for (bytes, words) in cases {
        let folder = configured("[components.mine]\nsource = \"mine.wasm\"\n");
        std::fs::write(folder.path().join("mine.wasm"), bytes).unwrap();
        let output = infer(folder.path(), &["check"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn component_with_forbidden_imports_is_rejected() {
    let wat = r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#;
    let folder = configured("[components.mine]\nsource = \"mine.wasm\"\n");
    std::fs::write(folder.path().join("mine.wasm"), wat::parse_str(wat).unwrap()).unwrap();
    let output = infer(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("infer.toml:2") && text.contains("imports `wasi:cli/environment@0.2.0`"), "{text}");
}

#[test]
fn moderate_reads_argument_or_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let output = infer(folder.path(), &["moderate", "You are so dumb and stupid!"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("flagged "), "{}", stdout(&output));

    let mut child = Command::new(env!("CARGO_BIN_EXE_infer"))
        .current_dir(folder.path())
        .args(["moderate", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Have a nice day.").unwrap();
    let answer: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(answer["results"][0]["flagged"], false);
}

#[test]
fn classify_prints_labels_or_names_failing_file() {
    let output = infer(&photos(), &["classify", "--top", "1", "coffee.jpg", "camera-grey.jpg"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("espresso") && stdout(&output).contains("tripod"),
        "{}",
        stdout(&output)
    );

    let output = infer(&photos(), &["classify", "README.md"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: cannot classify `README.md`: "), "{}", stderr(&output));
}

#[test]
fn embedded_backend_serves_without_onnxruntime() {
    let config = infer_config::CONFIG.replace("[server]", "[server]\nonnxruntime = \"off\"");
    let folder = configured(&config);
    let output = infer(folder.path(), &["check"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("built-in rten"), "{}", stdout(&output));
    let photo = photos().join("coffee.jpg");
    let output = infer(folder.path(), &["classify", "--top", "1", photo.to_str().unwrap()]);
    assert!(stdout(&output).contains("espresso"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn wrong_arguments_exit_with_two() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["serv"][..],
        &["classify"],
        &["bench"],
        &["--config", "nowhere.toml", "check"],
        &["check", "--instruction-set", "mmx"],
    ] {
        let output = infer(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn reload_and_diff_reach_a_running_server() {
    let [address, admin] = [(); 2].map(|()| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    });
    let config = |more: &str| {
        format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n{more}\n[components.moderate]\n\
             source = \"builtin:moderate\"\nroute = \"/moderate\"\n"
        )
    };
    let folder = configured(&config(""));
    let output = infer(folder.path(), &["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no server answers at"), "{}", stderr(&output));
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(&folder).arg("serve").env_remove("INFER_CONFIG").env_remove("INFER_LOG");
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    let same = loop {
        let output = infer(folder.path(), &["check", "--diff"]);
        if output.status.success() || began.elapsed().as_secs() > 60 {
            break output;
        }
    };
    assert!(stdout(&same).contains("nothing would change"), "{}{}", stdout(&same), stderr(&same));
    let write = |more: &str| std::fs::write(folder.path().join("infer.toml"), config(more)).unwrap();
    write("max_inputs = 7");
    let asked = infer(folder.path(), &["check", "--diff"]);
    let text = stdout(&asked);
    assert!(text.contains("server.max_inputs: 128 -> 7") && text.contains("needs no restart"), "{text}");
    let done = infer(folder.path(), &["reload"]);
    assert!(stdout(&done).contains("server.max_inputs: 128 -> 7"), "{}{}", stdout(&done), stderr(&done));
    assert!(stdout(&infer(folder.path(), &["reload"])).contains("nothing has changed"));
    write("connections = 9");
    let asked = infer(folder.path(), &["check", "--diff"]);
    assert!(
        stdout(&asked).contains("server.connections: 1024 -> 9  (needs a restart)"),
        "{}",
        stdout(&asked)
    );
    let refused = infer(folder.path(), &["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("returned 409: a restart is required"), "{}", stderr(&refused));
    write("connections = \"many\"");
    let mistake = infer(folder.path(), &["reload"]);
    assert_eq!(mistake.status.code(), Some(2), "{}", stderr(&mistake));
    // With `watch`, the change is applied without a request.
    write("max_inputs = 7\nwatch = true");
    assert!(infer(folder.path(), &["reload"]).status.success());
    write("max_inputs = 9\nwatch = true");
    let began = std::time::Instant::now();
    while !stdout(&infer(folder.path(), &["check", "--diff"])).contains("nothing would change") {
        assert!(began.elapsed().as_secs() < 60, "it is not taken up");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
