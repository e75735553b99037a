pub(crate) mod http2;
mod skip;
pub(crate) mod windows;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use infer_config::{Config, Origin};
use infer_control::registry::Registry;
use infer_server::serve::Listeners;
use infer_server::service::Service;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use skip::skip;

/// The built-in configuration, loaded once for all tests.
pub(crate) static BUILTIN: LazyLock<Arc<Registry>> = LazyLock::new(|| Arc::new(load(infer_config::CONFIG)));

/// The built-in configuration with `toxic-bilstm` as its only text model, and `words`: that model
/// without its tokenizer, which takes ids.
pub(crate) static BILSTM: LazyLock<Arc<Registry>> = LazyLock::new(|| Arc::new(load(&bilstm())));

/// The configuration of [`BILSTM`].
pub(crate) fn bilstm() -> String {
    let config = infer_config::CONFIG.replace("moderation-encoder", "toxic-bilstm");
    format!("{config}\n{}", words_section())
}

/// The section of the configuration with the model `words`.
pub(crate) fn words_section() -> String {
    format!("[models.words]\nsource = {:?}\n", words())
}

/// The weights folder of `words`, which stays until the tests end.
pub(crate) fn words() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let from = repository().join("weights/toxic-bilstm");
        for file in ["model.onnx", "labels.txt"] {
            std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
        }
        let card = std::fs::read_to_string(from.join("card.toml")).unwrap();
        let between = |begin: &str, end: &str| {
            let (_, rest) = card.split_once(begin).unwrap();
            format!("{begin}{}", rest.split_once(end).unwrap().0)
        };
        let head = card.split_once("[[files]]\npath = \"tokenizer.json\"").unwrap().0;
        let tensors = between("[[inputs]]", "# The thresholds");
        std::fs::write(folder.path().join("card.toml"), format!("{head}{tensors}")).unwrap();
        folder
    });
    FOLDER.path()
}

pub(crate) fn load(config: &str) -> Registry {
    let origin = Origin::File(repository().join("infer.toml"));
    Registry::load(Config::parse(config, &origin).unwrap()).unwrap()
}

pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn photo(name: &str) -> Vec<u8> {
    std::fs::read(photos().join(name)).unwrap()
}

pub(crate) fn photos() -> PathBuf {
    repository().join("tests/data/photos")
}

/// Names of all photos, sorted.
pub(crate) fn photo_names() -> Vec<String> {
    let entries = std::fs::read_dir(photos()).unwrap().map(|entry| entry.unwrap().path());
    let images = entries.filter(|path| path.extension() != Some("md".as_ref()));
    let mut names: Vec<_> =
        images.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// The component with hostile guests.
pub(crate) fn hostile() -> String {
    guest("hostile")
}

/// A component that `make guests` builds only for tests.
pub(crate) fn guest(name: &str) -> String {
    Path::new(env!("INFER_GUESTS")).join(name).with_extension("wasm").display().to_string()
}

pub(crate) fn golden() -> Value {
    let text = std::fs::read_to_string(repository().join("tests/data/golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A server in this process, on its own port.
pub(crate) struct Server {
    url: String,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(registry: Arc<Registry>) -> Server {
        Server::listen(registry, TcpListener::bind("127.0.0.1:0").await.unwrap().into())
    }

    /// Starts a server on all of `listeners`.
    pub(crate) fn listen(registry: Arc<Registry>, listeners: Listeners) -> Server {
        Server::of(Service::new(registry, listeners.admin_address(), None), listeners)
    }

    /// Starts a server of `service`, which can be reloaded.
    pub(crate) fn of(service: Arc<Service>, listeners: Listeners) -> Server {
        let url = listeners.url().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(infer_server::serve::run(service, listeners, async {
            let _ = stopped.await;
        }));
        Server { url, client: Client::new(), stop: Some(stop), task }
    }

    pub(crate) async fn builtin() -> Server {
        Server::start(BUILTIN.clone()).await
    }

    /// The server's address.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) async fn moderate(&self, body: &Value) -> (StatusCode, Value) {
        answer(self.post("/moderate").json(body)).await
    }

    pub(crate) async fn classify(&self, query: &str, image: Vec<u8>) -> (StatusCode, Value) {
        answer(self.post(&format!("/classify{query}")).header("content-type", "image/jpeg").body(image)).await
    }

    /// Stops the server, as a signal would.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(self) -> std::io::Result<()> {
        self.task.await.unwrap()
    }
}

/// `infer serve` as a child process with the infer.toml of a folder; killed on drop.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn serve(folder: &Path, log: &str) -> Process {
        let mut command = infer(folder);
        command.args(["serve", "--log", log]).stdout(Stdio::null());
        Process::new(command)
    }

    pub(crate) fn new(mut command: Command) -> Process {
        Process(command.spawn().unwrap())
    }

    /// Resident memory (`VmRSS`), in KB.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Peak resident memory (`VmHWM`), in KB.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends SIGHUP, which reloads the configuration.
    pub(crate) fn hangup(&self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The `infer` program, with `folder` as its working directory.
pub(crate) fn infer(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).env_remove("INFER_CONFIG");
    command
}

/// A free local address.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// True if the server at `address` is ready.
pub(crate) async fn ready(client: &Client, address: &str) -> bool {
    let answer = client.get(format!("http://{address}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Waits until a request to `registry` is in flight: its body has arrived and takes memory.
pub(crate) async fn request_arrives(registry: &Registry) {
    eventually(async || registry.sandbox.memory().used_bytes() > 0).await;
}

/// Waits until `holds` returns true, with a generous timeout for a busy machine.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "it did not come about in 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
