use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::repository;

/// A folder with an infer.toml and its own cache folder.
struct Setting {
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let setting = Setting { folder };
        setting.configure(config);
        setting
    }

    fn configure(&self, config: &str) {
        fs::write(self.path("infer.toml"), format!("[server]\nonnxruntime = \"off\"\n{config}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn infer(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command.current_dir(&self.folder).args(arguments).env_remove("INFER_CONFIG").env_remove("INFER_LOG");
        command.env("INFER_CACHE", self.path("cache")).output().unwrap()
    }

    /// Runs `infer`, asserts success, and returns its output.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.infer(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Runs `infer`, asserts the exit code `code`, and returns its output.
    fn failed(&self, arguments: &[&str], code: i32) -> String {
        let output = self.infer(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        text(&output)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// The folder of a pulled model in the cache folder of the user who runs the tests.
pub(crate) fn pulled(model: &str) -> PathBuf {
    infer_models::weights::folder(model).unwrap()
}

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

#[test]
fn pulled_file_is_stored_verified_and_removed() {
    let setting = Setting::new("[models.a]\nsource = \"builtin:smollm2\"\n");
    let folder = setting.path("cache/models/smollm2");
    fs::create_dir_all(&folder).unwrap();
    let place = folder.join(SMOLLM2);
    // As copied by hand, or by an earlier version.
    fs::copy(pulled("smollm2").join(SMOLLM2), &place).unwrap();
    assert!(setting.done(&["pull", "smollm2"]).contains("exists and matches its card"));
    let blob = fs::canonicalize(&place).unwrap();
    assert!(place.is_symlink() && blob.starts_with(fs::canonicalize(setting.path("cache/blobs")).unwrap()));
    assert!(setting.done(&["check"]).contains("the configuration is valid"));
    let listed = setting.done(&["list"]);
    assert!(listed.lines().any(|line| line.starts_with("smollm2 ") && line.contains("  whole ")), "{listed}");
    assert!(setting.done(&["verify", "smollm2"]).contains("`smollm2` matches its card: sha256 b179c9523d0e"));

    let mut bytes = fs::read(&blob).unwrap();
    bytes[50_000_000] ^= 1;
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, bytes).unwrap();
    let printed = setting.failed(&["verify"], 1);
    assert!(
        printed.contains("`smollm2` is damaged: ")
            && printed.contains("; `infer pull smollm2` fetches it again"),
        "{printed}"
    );
    assert!(setting.failed(&["check"], 1).contains("its card says b179c9523d0e"));

    assert!(setting.done(&["rm", "smollm2"]).contains("`smollm2` is removed: "));
    assert!(!place.exists() && !blob.exists());
    let mut packed = fs::read_dir(setting.path("cache/packed")).unwrap().map(|entry| entry.unwrap().path());
    assert!(packed.all(|path| path.extension().is_none_or(|extension| extension != "packed")));
    assert!(setting.failed(&["check"], 1).contains("; run `infer pull smollm2`"));
    assert!(setting.failed(&["rm", "smollm2"], 1).contains("no model `smollm2` is in "));
    assert!(setting.failed(&["verify", "smollm2"], 1).contains("no model `smollm2` is in the cache folder"));
}

#[test]
fn only_pinned_files_are_served() {
    let config = |extra: &str| {
        format!(
            "[models.text]\nsource = \"builtin:toxic-bilstm\"\n[models.mine]\nsource = \"mine\"\n\
             [components.moderate]\nsource = \"moderate.wasm\"\nmodels = {{ text = \"text\" }}\n{extra}"
        )
    };
    let setting = Setting::new(&config(""));
    let guest = infer_models::builtin::guest("moderate").unwrap();
    fs::write(setting.path("moderate.wasm"), guest).unwrap();
    fs::create_dir(setting.path("mine")).unwrap();
    for file in ["card.toml", "model.onnx", "labels.txt"] {
        let from = repository().join("weights/nsfwjs-mobilenet_v2-int8").join(file);
        fs::copy(from, setting.path("mine").join(file)).unwrap();
    }
    assert!(setting.done(&["lock"]).contains("infer.lock` pins 2 models and 1 components"));
    let pinned = fs::read_to_string(setting.path("infer.lock")).unwrap();
    setting.done(&["check"]);

    // A component with an additional empty section.
    fs::write(setting.path("moderate.wasm"), [guest, &[0, 2, 1, b'x']].concat()).unwrap();
    let printed = setting.failed(&["check"], 1);
    assert!(
        printed.contains("component `moderate` has sha256 ") && printed.contains("infer.lock` pins "),
        "{printed}"
    );
    assert!(setting.failed(&["serve"], 1).contains("component `moderate` has sha256 "));
    fs::write(setting.path("moderate.wasm"), guest).unwrap();

    // A card with another description of the same file.
    let card = fs::read_to_string(setting.path("mine/card.toml")).unwrap();
    fs::write(setting.path("mine/card.toml"), format!("# another\n{card}")).unwrap();
    let printed = setting.failed(&["check"], 1);
    assert!(printed.contains("infer.toml:6: model `mine` has sha256 "), "{printed}");
    assert!(printed.contains("or run `infer lock` to pin the current one"), "{printed}");
    fs::write(setting.path("mine/card.toml"), card).unwrap();

    setting.configure(&config("[models.new]\nsource = \"builtin:toxic-bilstm\"\n"));
    let printed = setting.failed(&["check"], 1);
    assert!(
        printed.contains("model `new` is not pinned in `infer.lock`; run `infer lock` to pin it"),
        "{printed}"
    );
    setting.configure(&config(""));
    setting.done(&["check"]);

    fs::write(setting.path("infer.lock"), "version = 9\n").unwrap();
    let printed = setting.failed(&["check"], 2);
    assert!(
        printed.contains("infer.lock: `version` is 9, expected 1; run `infer lock` to write it again"),
        "{printed}"
    );
    setting.done(&["lock"]);
    assert_eq!(fs::read_to_string(setting.path("infer.lock")).unwrap(), pinned, "equal boxes, equal locks");
}

#[test]
fn damaged_machine_code_is_recompiled() {
    let setting = Setting::new("[components.predict]\nsource = \"builtin:predict\"\n");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "compiled")).collect()
    };
    let folder = setting.path("cache/compiled");
    assert!(setting.done(&["compile"]).contains("component `predict` is compiled"));
    let [entry] = entries(&folder).try_into().unwrap();
    assert!(setting.done(&["compile"]).contains("component `predict` is cached and verified"));
    let good = fs::read(&entry).unwrap();
    let mode = fs::metadata(folder.join("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let foreign = Setting::new("[components.predict]\nsource = \"builtin:predict\"\n");
    foreign.done(&["compile"]);
    let [theirs] = entries(&foreign.path("cache/compiled")).try_into().unwrap();
    let cases = [
        ("a flipped byte", flipped, "its MAC differs; recompiling the component"),
        ("half of it", good[..middle].to_vec(), "its MAC differs; recompiling the component"),
        ("nothing", Vec::new(), "ends at byte 0, within its header; recompiling the component"),
        ("another machine's", fs::read(theirs).unwrap(), "was signed with another key"),
    ];
    for (what, bytes, words) in cases {
        fs::write(&entry, bytes).unwrap();
        let printed = setting.done(&["check"]);
        assert!(
            printed.contains(words) && printed.contains("the configuration is valid"),
            "{what}: {printed}"
        );
        assert!(setting.done(&["compile"]).contains("is cached and verified"), "{what}: it is mended");
    }
    // Without a writable folder, components are compiled each time.
    fs::remove_dir_all(setting.path("cache")).unwrap();
    fs::write(setting.path("cache"), "").unwrap();
    assert!(setting.done(&["check"]).contains("the component will be recompiled at the next start"));
    assert!(setting.failed(&["compile"], 1).contains("cannot be cached"));
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs `infer` with a time limit and returns its exit code and output.
fn bounded(setting: &Setting, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.arg("100").arg(env!("CARGO_BIN_EXE_infer")).args(arguments).current_dir(&setting.folder);
    command.env_remove("INFER_CONFIG").env_remove("INFER_LOG").env("INFER_CACHE", setting.path("cache"));
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(124), "{arguments:?} waits");
    (output.status.code(), text(&output))
}

/// A setting with every file that a start reads, and others that commands read.
fn readable() -> Setting {
    let setting = Setting::new(
        "tls = { certificate = \"cert.pem\", key = \"key.pem\" }\n\
         [models.mine]\nsource = \"mine\"\n\
         [components.classify]\nsource = \"classify.wasm\"\nroute = \"/classify\"\nmodels = { image = \"mine\" }\n\
         tests = [{ image = \"photo.jpg\" }]\n",
    );
    fs::write(setting.path("classify.wasm"), infer_models::builtin::guest("classify").unwrap()).unwrap();
    fs::create_dir(setting.path("mine")).unwrap();
    for file in ["card.toml", "model.onnx", "labels.txt"] {
        let from = repository().join("weights/efficientnet-lite0-int8").join(file);
        fs::copy(from, setting.path("mine").join(file)).unwrap();
    }
    fs::copy(repository().join("tests/data/photos/coffee.jpg"), setting.path("photo.jpg")).unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(setting.path("cert.pem"), key.cert.pem()).unwrap();
    fs::write(setting.path("key.pem"), key.signing_key.serialize_pem()).unwrap();
    setting
}

#[test]
fn commands_do_not_block_on_fifos() {
    let setting = readable();
    setting.done(&["lock"]);
    setting.done(&["check"]);
    let configured = [
        "infer.toml",
        "infer.lock",
        "mine/card.toml",
        "mine/model.onnx",
        "mine/labels.txt",
        "classify.wasm",
        "cert.pem",
        "key.pem",
        "photo.jpg",
    ];
    for name in configured {
        let before = fs::read(setting.path(name)).unwrap();
        fifo(&setting.path(name));
        // `serve` also reads the certificate.
        let (code, printed) = bounded(&setting, &["serve", "--listen", "127.0.0.1:0"]);
        let last = Path::new(name).file_name().unwrap().to_str().unwrap();
        assert!(code != Some(0) && printed.contains(last), "{name}: {printed}");
        if name.starts_with("infer") || name.starts_with("mine") {
            for command in ["check", "lock", "models", "plan"] {
                bounded(&setting, &[command]);
            }
        }
        fs::remove_file(setting.path(name)).unwrap();
        fs::write(setting.path(name), before).unwrap();
    }
    setting.done(&["check"]);

    // Files that are given on the command line.
    fifo(&setting.path("given"));
    let link = setting.path("given").display().to_string();
    for command in [
        &["classify", "given"][..],
        &["moderate", "--image", "given"],
        &["bench", "--model", "mine", "--dataset", "given"],
        &["bench", "--model", "mine", "--baseline", "given"],
        &["check", "--config", &link],
    ] {
        assert_ne!(bounded(&setting, command).0, Some(0), "{command:?}");
    }
}

#[test]
fn bad_cache_entries_are_rebuilt() {
    let setting = Setting::new(
        "[models.a]\nsource = \"builtin:smollm2\"\n[models.text]\nsource = \"builtin:toxic-bilstm\"\n\
        [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\nmodels = { text = \"text\" }\n",
    );
    let folder = setting.path("cache/models/smollm2");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(pulled("smollm2").join(SMOLLM2), folder.join(SMOLLM2)).unwrap();
    setting.done(&["check"]);
    let victim = setting.path("victim");
    fs::write(&victim, "precious").unwrap();
    let mut places = Vec::new();
    for folder in ["cache/compiled", "cache/packed"] {
        places.extend(fs::read_dir(setting.path(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert!(places.len() >= 5, "{places:?}");
    for place in &places {
        for is_link in [false, true] {
            fifo(place);
            if is_link {
                fs::remove_file(place).unwrap();
                std::os::unix::fs::symlink(&victim, place).unwrap();
            }
            let (code, printed) = bounded(&setting, &["check"]);
            assert_eq!(code, Some(0), "{}: {printed}", place.display());
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{}", place.display());
            let _ = fs::remove_file(place);
        }
    }
}

#[test]
fn lock_is_written_through_no_link() {
    let setting = Setting::new("[models.text]\nsource = \"builtin:toxic-bilstm\"\n");
    fs::write(setting.path("victim"), "precious").unwrap();
    // The name of a temporary lock file in earlier versions, and the lock itself.
    let script =
        "ln -s victim infer.lock.$$; ln -s victim .infer.lock.$$; ln -sf victim infer.lock; exec \"$0\" lock";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_infer")]).current_dir(&setting.folder);
    command.env_remove("INFER_CONFIG").env_remove("INFER_LOG").env("INFER_CACHE", setting.path("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_to_string(setting.path("victim")).unwrap(), "precious");
    assert!(!setting.path("infer.lock").is_symlink());
    assert!(fs::read_to_string(setting.path("infer.lock")).unwrap().contains("[models.text]"));
}
