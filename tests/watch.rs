use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use infer_config::Config;
use infer_control::registry::Registry;
use infer_server::serve::Listeners;
use infer_server::service::Service;

use crate::harness::{Server, eventually};
use crate::reload::{Place, edit, moderator, version};

/// A moderator on the model of the folder `model`, whose files are watched.
fn watched(model: &str) -> String {
    moderator(model, "").replace("[server]\n", "[server]\nwatch = true\n")
}

/// The hash of the model in the folder `model`.
fn hash_of(place: &Place, model: &str) -> String {
    let path = place.folder.path().join(format!("{model}.toml"));
    fs::write(&path, moderator(model, "")).unwrap();
    Registry::load(Config::load(Some(&path)).unwrap()).unwrap().models["text"].hash().to_owned()
}

/// Watches until the model with `hash` answers.
async fn watch_until(place: &Place, hash: &str) {
    let watching = tokio::spawn(infer_control::watch::watch(place.live.clone()));
    eventually(async || place.hash().await == hash).await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_before_the_first_look_is_served() {
    type Edit = fn(&Path);
    let edits: [(&str, Edit); 4] = [
        ("written", |folder| fs::write(folder.join("infer.toml"), watched("two")).unwrap()),
        ("renamed into place", |folder| {
            fs::write(folder.join("new"), watched("two")).unwrap();
            fs::rename(folder.join("new"), folder.join("infer.toml")).unwrap();
        }),
        ("a link", |folder| {
            fs::write(folder.join("new"), watched("two")).unwrap();
            fs::remove_file(folder.join("infer.toml")).unwrap();
            symlink("new", folder.join("infer.toml")).unwrap();
        }),
        ("a model's files", |folder| {
            for file in ["card.toml", "model.onnx"] {
                fs::copy(folder.join("two").join(file), folder.join("one").join(file)).unwrap();
            }
        }),
    ];
    for (name, edit) in edits {
        let place = Place::new(&watched("one")).await;
        let (before, after) = (place.hash().await, hash_of(&place, "two"));
        edit(place.folder.path());
        assert_eq!(place.hash().await, before, "{name}");
        watch_until(&place, &after).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_during_a_reload_is_served() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        version(folder.path(), name);
    }
    let path = folder.path().join("infer.toml");
    fs::write(&path, watched("one")).unwrap();
    let registry = Arc::new(Registry::load(Config::load(Some(&path)).unwrap()).unwrap());
    let listeners = Listeners::bind(&registry.config.server).await.unwrap();
    let is_edited = AtomicBool::new(false);
    let read = {
        let path = path.clone();
        move || {
            let config = Config::load(Some(&path))?;
            // After the configuration is read, before its files are loaded.
            if !is_edited.swap(true, Ordering::Relaxed) {
                fs::write(&path, watched("three"))?;
            }
            Ok(config)
        }
    };
    let service = Service::new(registry, listeners.admin_address(), Some(Box::new(read)));
    let live = service.live().clone();
    let _server = Server::of(service, listeners);
    let watching = tokio::spawn(infer_control::watch::watch(live.clone()));
    fs::write(&path, watched("two")).unwrap();
    eventually(async || {
        let source = live.registry().config.models["text"].source.to_string();
        source.ends_with("three")
    })
    .await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_edit_is_tried_again_once_fixed() {
    let place = Place::new(&watched("one")).await;
    let watching = tokio::spawn(infer_control::watch::watch(place.live.clone()));
    place.write(&watched("three"));
    eventually(async || place.metrics().await.contains("infer_reloads_total{outcome=\"read\"} 1")).await;
    // The configuration does not change; the folder that it names appears.
    version(place.folder.path(), "three");
    let expected = hash_of(&place, "three");
    eventually(async || place.hash().await == expected).await;
    // A card that is invalid, then valid again.
    let card = place.folder.path().join("three/card.toml");
    edit(&card, "Version three", "Version \"three");
    eventually(async || place.metrics().await.contains("infer_reloads_total{outcome=\"load\"} 1")).await;
    edit(&card, "Version \"three", "Version four");
    let expected = hash_of(&place, "three");
    eventually(async || place.hash().await == expected).await;
    watching.abort();
}
