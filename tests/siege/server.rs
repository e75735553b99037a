//! The server under siege: limits of a tenant's components and keys.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use infer_config::keys::KeyHash;

use super::guests::{ATTACKS, BULK};
use crate::harness::{Process, guest, hostile, infer, words_section};

/// The key of the good requests, without limits.
pub(super) const GOOD: &str = "good";
/// The key of attackers that compute: a few requests in flight, as for any tenant of a shared
/// server.
pub(super) const TENANT: &str = "tenant";
/// The key of slow attackers, without limits: requests that are never sent use no quota.
pub(super) const SLOW: &str = "slow";

/// Concurrency limit of the tenant, below the pool's number of instances.
const TENANT_CONCURRENCY: usize = 16;

/// Maximum memory of the process.
pub(super) const MEMORY_BYTES: u64 = 900 << 20;

/// Limits of an untrusted component: a few milliseconds and a few megabytes.
const LIMITS: &str = "memory_bytes = 16777216, tensor_bytes = 1048576, guest_ms = 5, compute_ms = 5";
/// Limits of a component that uses memory in bulk: the default memory.
const BULK_LIMITS: &str = "guest_ms = 5, instances = 2";
/// Limits of a component that answers HTTP requests: few instances, as it may keep them until the
/// deadline.
const HTTP_LIMITS: &str = "memory_bytes = 16777216, tensor_bytes = 1048576, guest_ms = 5, instances = 4";

/// Writes the configuration of a server at `address` into `folder`, and starts it.
pub(super) fn serve(folder: &Path, address: &str) -> Process {
    let mut config = format!(
        "[server]\nlisten = \"{address}\"\nconnections = 320\nconnections_per_ip = 128\n\
         header_ms = 4000\nbody_ms = 4000\nidle_ms = 4000\nsend_ms = 2000\nmemory_bytes = {MEMORY_BYTES}\n\
         [models.text]\nsource = \"builtin:toxic-bilstm\"\nsessions = 2\n\
         [models.image]\nsource = \"builtin:nsfwjs-mobilenet_v2-int8\"\nsessions = 1\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = {{ text = \"text\", image = \"image\" }}\n"
    );
    for (name, concurrency) in [(GOOD, None), (TENANT, Some(TENANT_CONCURRENCY)), (SLOW, None)] {
        config += &format!("[keys.{name}]\nhash = \"{}\"\n", KeyHash::of(name));
        if let Some(max) = concurrency {
            config += &format!("concurrency = {max}\n");
        }
    }
    config += &words_section();
    // Explicit, so that no session for single jobs takes memory.
    config += "sessions = 2\n";
    for attack in ATTACKS {
        config += &format!(
            "[components.{attack}]\nsource = {:?}\nroute = \"/{attack}\"\nmodels = {{ text = \"words\" }}\n\
             settings = {{ attack = \"{attack}\" }}\nlimits = {{ {LIMITS} }}\n",
            hostile()
        );
    }
    for (attack, body) in BULK {
        let path = folder.join(format!("{attack}.wasm"));
        fs::write(&path, wat::parse_str(handler(body)).unwrap()).unwrap();
        config += &format!(
            "[components.{attack}]\nsource = {path:?}\nroute = \"/{attack}\"\nlimits = {{ {BULK_LIMITS} }}\n"
        );
    }
    config += &format!(
        "[components.http]\nsource = {:?}\nroute = \"/http/...\"\nlimits = {{ {HTTP_LIMITS} }}\n",
        guest("hostile-http")
    );
    fs::write(folder.join("infer.toml"), config).unwrap();
    let mut command = infer(folder);
    let log = File::create(folder.join("log")).unwrap();
    command.args(["serve", "--log", "info"]).stdout(Stdio::null()).stderr(log);
    Process::new(command)
}

/// A component that answers HTTP requests, around a core module with 128 MiB of memory, a table and
/// `body`.
fn handler(body: &str) -> String {
    format!(
        "(component
            (import \"wasi:http/types@0.2.0\" (instance $http
                (export \"incoming-request\" (type (sub resource)))
                (export \"response-outparam\" (type (sub resource)))))
            (alias export $http \"incoming-request\" (type $request))
            (alias export $http \"response-outparam\" (type $answer))
            (core module $module
                (memory (export \"memory\") 1)
                (table $table 1 10000 funcref)
                (func (export \"handle\") (param i32 i32) {body}))
            (core instance $module (instantiate $module))
            (func $handle (param \"request\" (own $request)) (param \"response-out\" (own $answer))
                (canon lift (core func $module \"handle\")))
            (instance $handler (export \"handle\" (func $handle)))
            (export \"wasi:http/incoming-handler@0.2.0\" (instance $handler)))"
    )
}
