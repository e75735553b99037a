use std::path::{Path, PathBuf};
use std::time::Duration;

use infer_models::source::Source;
use infer_models::weights::Reuse;
use infer_sandbox::Limits;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, &Origin::File(PathBuf::from("/etc/infer/infer.toml")))
}

fn mistakes(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn built_in_configuration_has_no_mistakes() {
    let config = Config::parse(CONFIG, &Origin::Builtin).unwrap();
    assert_eq!(config.models.len(), 4);
    let routes: Vec<_> =
        config.components.values().filter_map(|component| component.route.as_deref()).collect();
    assert_eq!(routes, ["/classify", "/moderate"]);
    assert!(config.server.listen.ip().is_loopback());
}

#[test]
fn limits_have_defaults_and_can_be_set() {
    let config = parse(
        "[components.a]\nsource = \"builtin:moderate\"\nlimits = { guest_ms = 7, memory_bytes = 99000, log_lines = 0 }\n\
         settings = { \"threshold.hate\" = 0.25, strict = true, count = 3, text = \"t\" }",
    )
    .unwrap();
    let component = &config.components["a"];
    let expected = Limits {
        guest_time: Duration::from_millis(7),
        memory_bytes: 99_000,
        log_lines: 0,
        ..Limits::default()
    };
    assert_eq!(component.limits, expected);
    let settings: Vec<_> =
        component.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(settings, [("count", "3"), ("strict", "true"), ("text", "t"), ("threshold.hate", "0.25")]);
}

#[test]
fn paths_are_relative_to_the_configurations_folder() {
    let message = mistakes("[models.a]\nsource = \"weights/a\"");
    assert!(message.contains("`/etc/infer/weights/a` does not exist"), "{message}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = "[models.a]\nsource = \"weights/toxic-bilstm\"";
    let config = Config::parse(text, &Origin::File(root.join("infer.toml"))).unwrap();
    assert_eq!(config.models["a"].source, Source::Path(root.join("weights/toxic-bilstm")));
}

#[test]
fn mistakes_name_line_subject_and_remedy() {
    let component = "[components.a]\nsource = \"builtin:moderate\"\n";
    let cases = [
        ("[server]\nlisten = \"nowhere\"".to_owned(), ":2: ", "it has no port; expected an address"),
        ("[server]\ninstances = 0".to_owned(), ":2: ", "`instances` is 0, expected 1 to 1000"),
        ("[server]\ndeadline_ms = -1".to_owned(), ":2: ", "invalid value: integer `-1`"),
        (
            "[server]\n\ndeadline_ms = 9000000000".to_owned(),
            ":3: ",
            "`deadline_ms` is 9000000000, expected 1 to 3600000",
        ),
        (
            "[models.a]\nsource = \"builtin:toxic-bilstm\"\nsessions = 0".to_owned(),
            ":3: ",
            "model `a`: `sessions` is 0, expected 1 to 64",
        ),
        (
            "[models.a]\nsource = \"builtin:toxic-bilstm\"\nkv_type = \"q4\"".to_owned(),
            ":3: ",
            "model `a`: `kv_type` is `q4`, expected `f16` or `int8`",
        ),
        (
            format!("{component}limits = {{ handles = 0 }}"),
            ":3: ",
            "component `a`: `handles` is 0, expected 1 to 1000000",
        ),
        ("[models.a]\n".to_owned(), ":1: ", "missing field `source`"),
        (
            format!("{component}colour = 3"),
            ":3: ",
            "unknown field `colour`, expected one of `source`, `route`",
        ),
        (format!("{component}limits = {{ guest_s = 3 }}"), ":3: ", "unknown field `guest_s`"),
        (
            format!("{component}settings = {{ list = [1] }}"),
            ":3: ",
            "a setting is a string, a number or a boolean",
        ),
        (format!("{component}settings = {{ \"models.x\" = 1 }}"), ":2: ", "keys that start with `models.`"),
        (
            format!("{component}settings = {{ \"request.x\" = 1 }}"),
            ":2: ",
            "keys that start with `request.` are reserved for the request",
        ),
        (format!("{component}route = \"/a b\""), ":3: ", "route is `/a b`, expected a path"),
        (
            format!(
                "{component}route = \"/x\"\n[components.b]\nsource = \"builtin:classify\"\nroute = \"/x\""
            ),
            ":6: ",
            "component `b`: route `/x` is already used by component `a`",
        ),
    ];
    for (text, line, words) in cases {
        let message = mistakes(&text);
        assert!(message.starts_with(&format!("/etc/infer/infer.toml{line}")), "{text}: {message}");
        assert!(message.contains(words), "{text}: {message}");
    }
}

#[test]
fn retained_component_keeps_its_models() {
    let mut config = Config::parse(CONFIG, &Origin::Builtin).unwrap();
    config.retain_components(|name| name == "classify");
    assert_eq!(config.components.keys().collect::<Vec<_>>(), ["classify"]);
    assert_eq!(config.models.keys().collect::<Vec<_>>(), ["efficientnet-lite0"]);
}

#[test]
fn packed_cache_is_on_by_default() {
    let reuse = |line: &str| {
        let config = parse(&format!("[models.m]\nsource = \"builtin:smollm2\"\n{line}")).unwrap();
        config.models["m"].reuse
    };
    assert_eq!(reuse(""), Reuse::All);
    assert_eq!(reuse("packed_cache = true"), Reuse::All);
    assert_eq!(reuse("packed_cache = false"), Reuse::Off);
    let mistake = mistakes("[models.m]\nsource = \"builtin:smollm2\"\npacked_cache = 1");
    assert!(mistake.contains("infer.toml:3: invalid type: integer `1`, expected a boolean"), "{mistake}");
}

#[test]
fn alias_names_an_existing_component() {
    let component = "[components.a]\nsource = \"builtin:moderate\"\nroute = \"/a\"\n";
    let config = parse(&format!("[server]\naliases = {{ b = \"a\" }}\n{component}")).unwrap();
    assert_eq!(config.server.aliases["b"], "a");
    let text = mistakes(&format!("[server]\naliases = {{ b = \"c\" }}\n{component}"));
    assert!(text.contains(":2: alias `b`: component `c` is not configured; expected `a`"), "{text}");
    let text = mistakes(&format!("[server]\naliases = {{ a = \"a\" }}\n{component}"));
    assert!(text.contains("alias `a` is a component's name"), "{text}");
    for route in ["/v1/moderations", "/v1alpha1/comments:analyze"] {
        let text = mistakes(&component.replace("/a", route));
        assert!(text.contains(&format!("route `{route}`")), "{text}");
    }
}

#[test]
fn upstreams_are_resolved() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "sk-secret\n").unwrap();
    let text = "[server]\nmax_body_bytes = 77\n[upstreams.u]\nurl = \"https://llm.example/v1/\"\nkey_file = \"key\"\n\
                models = { here = \"there\" }\n[keys.k]\nhash = \"sha256:HASH\"\nmodels = [\"here\"]\n";
    let text = text.replace("HASH", &"0".repeat(64));
    let config = Config::parse(&text, &Origin::File(folder.path().join("infer.toml"))).unwrap();
    let upstream = &config.upstreams["u"];
    assert_eq!(upstream.url.to_string(), "https://llm.example/v1");
    assert_eq!((upstream.models["here"].as_str(), upstream.max_body_bytes), ("there", 77));
    assert_eq!(upstream.key.as_ref().unwrap().reveal(), "sk-secret");
    assert!(!upstream.permits_private());
    let printed = format!("{config:?}") + &format!("{:?}", crate::Resolved::of(&config));
    assert!(!printed.contains("sk-secret"), "{printed}");
    // A new key in the same file is a change, and neither key is shown.
    std::fs::write(folder.path().join("key"), "sk-other").unwrap();
    let next = Config::parse(&text, &Origin::File(folder.path().join("infer.toml"))).unwrap();
    let changes = crate::Resolved::changed_secrets(&config, &next);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].to_string(), "upstreams.u.key: one key -> another key");
}

#[test]
fn mistakes_of_upstreams_are_named() {
    let (url, models) = ("url = \"https://llm.example/v1\"\n", "models = { here = \"there\" }\n");
    let cases = [
        (
            "url = \"llm.example\"\n",
            models,
            "upstream `u`: `url` is invalid (`llm.example`): it has no scheme",
        ),
        (
            "url = \"https://me:secret@llm.example\"\n",
            models,
            "upstream `u`: `url` is invalid (`…`): it has a user",
        ),
        ("url = \"http://llm.example/v1\"\n", models, "would send the key and all texts unencrypted"),
        ("url = \"http://1.1.1.1/v1\"\n", models, "would send the key and all texts unencrypted"),
        ("url = \"https://169.254.169.254\"\n", models, "`url` has a link-local address"),
        ("url = \"https://[::]\"\n", models, "`url` has an unspecified address"),
        (url, "models = {}\n", "upstream `u`: `models` is empty"),
        (url, "models = { local = \"there\" }\n", "model `local` is also a section [models.local]"),
        (
            url,
            "models = { here = \"there\" }\nkey_file = \"absent\"\n",
            "`key_file` is `/etc/infer/absent`, which cannot be read",
        ),
        (
            url,
            "models = { here = \"there\" }\nkey_env = \"INFER_TEST_ABSENT\"\n",
            "`key_env` is `INFER_TEST_ABSENT`, and the environment has no such variable",
        ),
        (
            url,
            "models = { here = \"there\" }\nkey_env = \"A\"\nkey_file = \"b\"\n",
            "has both `key_file` and `key_env`",
        ),
        (url, "models = { here = \"there\" }\nca_file = \"absent\"\n", "`ca_file` is `/etc/infer/absent`"),
    ];
    for (url, rest, expected) in cases {
        let text = format!("[models.local]\nsource = \"builtin:toxic-bilstm\"\n[upstreams.u]\n{url}{rest}");
        let found = mistakes(&text);
        assert!(found.contains(expected) && !found.contains("secret"), "{text}: {found}");
    }
    let two = format!("[upstreams.a]\n{url}{models}[upstreams.b]\n{url}{models}");
    let found = mistakes(&two);
    assert!(found.contains("upstream `b`: model `here` is also in upstream `a`"), "{found}");
    let key = format!(
        "[upstreams.a]\n{url}{models}[keys.k]\nhash = \"sha256:{}\"\nmodels = [\"x\"]\n",
        "0".repeat(64)
    );
    let found = mistakes(&key);
    assert!(found.contains("key `k`: model `x` is not configured; expected `here`"), "{found}");
}
