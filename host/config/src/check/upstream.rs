//! Checks upstreams: URLs, keys, names and limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use infer_engine::files;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use toml::Spanned;

use super::{Checker, inner};
use crate::config::ModelConfig;
use crate::limits::{MAX_CA_BYTES, MAX_UPSTREAM_KEY_BYTES};
use crate::network::{self, Class};
use crate::place::Place;
use crate::table;
use crate::upstream::{
    KeySource, Resilience, Secret, UpstreamConfig, UpstreamHost, UpstreamTimes, UpstreamUrl,
};

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    /// Checks all upstreams. A name of a model is that of a local model or of one upstream.
    /// `max_body_bytes` is the server's.
    pub(super) fn upstreams(
        &mut self,
        sections: BTreeMap<String, table::Upstream>,
        models: &BTreeMap<String, ModelConfig>,
        max_body_bytes: usize,
    ) -> BTreeMap<String, UpstreamConfig> {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut upstreams = BTreeMap::new();
        for (name, section) in sections {
            let subject = format!("upstream `{name}`");
            if section.models.is_empty() {
                let message = format!(
                    "{subject}: `models` is empty; expected names such as `{{ \"name-here\" = \"name-there\" }}`"
                );
                self.mistake(section.url.span().start, message);
            }
            for (model, there) in &section.models {
                let at = there.span().start;
                if models.contains_key(model) {
                    let message = format!(
                        "{subject}: model `{model}` is also a section [models.{model}]; expected another name in one of \
                         them, because a request's `model` selects one"
                    );
                    self.mistake(at, message);
                }
                if let Some(other) = owners.insert(model.clone(), name.clone()) {
                    let message = format!(
                        "{subject}: model `{model}` is also in upstream `{other}`; expected another name"
                    );
                    self.mistake(at, message);
                }
            }
            let upstream = self.upstream(&subject, section, max_body_bytes);
            upstreams.extend(upstream.map(|upstream| (name, upstream)));
        }
        upstreams
    }

    fn upstream(
        &mut self,
        subject: &str,
        section: table::Upstream,
        max_body_bytes: usize,
    ) -> Option<UpstreamConfig> {
        let at = section.url.span().start;
        let private_addresses = section.private_addresses().flag();
        let url = self.upstream_url(subject, &section.url, private_addresses);
        let (key_source, key) = self.upstream_key(subject, &section);
        let roots = section.ca_file.as_ref().map(|path| self.roots(subject, path));
        let prefix = format!("{subject}: ");
        let times = UpstreamTimes {
            connect: self.duration(&prefix, section.connect_ms()),
            first_byte: self.duration(&prefix, section.first_byte_ms()),
            idle: self.duration(&prefix, section.idle_ms()),
        };
        let retry_percent = section.retry_percent();
        let resilience = Resilience {
            retries: self.number(&prefix, section.retries()) as u32,
            retry_percent: self
                .real(&prefix, section.retry_percent())
                .unwrap_or_else(|| retry_percent.key.real()),
            breaker_failures: self.number(&prefix, section.breaker_failures()) as u32,
            breaker_time: self.duration(&prefix, section.breaker_ms()),
        };
        let prices = [self.real(&prefix, section.input_price()), self.real(&prefix, section.output_price())];
        Some(UpstreamConfig {
            at: (self.place)(at),
            key_source,
            key,
            roots,
            private_addresses,
            times,
            connections: self.number(&prefix, section.connections()) as usize,
            resilience,
            max_body_bytes: self.number_or(&prefix, section.max_body_bytes(), max_body_bytes as u64) as usize,
            max_response_bytes: self.number(&prefix, section.max_response_bytes()) as usize,
            max_event_bytes: self.number(&prefix, section.max_event_bytes()) as usize,
            prices,
            models: inner(Some(section.models)),
            url: url?,
        })
    }

    fn upstream_url(
        &mut self,
        subject: &str,
        entry: &Spanned<String>,
        private_addresses: bool,
    ) -> Option<UpstreamUrl> {
        let at = entry.span().start;
        let url = match entry.get_ref().parse::<UpstreamUrl>() {
            Ok(url) => url,
            Err(reason) => {
                // A user's part may be a key, so the message does not repeat it.
                let text = entry.get_ref();
                let quoted = if text.contains('@') { "…".into() } else { excerpt(text, QUOTE_BYTES) };
                let message = format!(
                    "{subject}: `url` is invalid (`{quoted}`): {reason}; expected a URL such as \
                     `https://llm.example/v1`"
                );
                self.mistake(at, message);
                return None;
            }
        };
        if let UpstreamHost::Address(address) = url.host
            && let Some(words) = network::rejected(address, true)
        {
            let message =
                format!("{subject}: `url` has {words}, `{address}`; expected an address of a server");
            self.mistake(at, message);
        }
        let is_near = match &url.host {
            UpstreamHost::Address(address) => network::class(*address) != Class::Public,
            name => name.is_local(),
        };
        if !url.is_tls && !private_addresses && !is_near {
            let message = format!(
                "{subject}: `url` is `{url}`, and `http` would send the key and all texts unencrypted; expected `https`, \
                 or `private_addresses = true` for a server in a private network"
            );
            self.mistake(at, message);
        }
        Some(url)
    }

    /// Reads the key. Messages never repeat any of it.
    fn upstream_key(
        &mut self,
        subject: &str,
        section: &table::Upstream,
    ) -> (Option<KeySource>, Option<Secret>) {
        if let (Some(_), Some(name)) = (&section.key_file, &section.key_env) {
            let message = format!("{subject} has both `key_file` and `key_env`; expected one of them");
            self.mistake(name.span().start, message);
        }
        let (at, source, found) = if let Some(file) = &section.key_file {
            let path = self.base.join(file.get_ref());
            let found = files::read_to_string(&path, MAX_UPSTREAM_KEY_BYTES).map_err(|error| {
                format!("`key_file` is `{}`, which cannot be read: {error}", path.display())
            });
            (file.span().start, KeySource::File(path), found)
        } else if let Some(name) = &section.key_env {
            let name_text = name.get_ref();
            let found = std::env::var(name_text).map_err(|_| {
                let name = excerpt(name_text, QUOTE_BYTES);
                format!("`key_env` is `{name}`, and the environment has no such variable in UTF-8")
            });
            (name.span().start, KeySource::Environment(name_text.clone()), found)
        } else {
            return (None, None);
        };
        let secret = found.and_then(|text| {
            let text = text.trim_ascii();
            Secret::new(text).map_err(|reason| format!("the key in `{source}` {reason}"))
        });
        let secret = secret.map_err(|problem| {
            let message = format!("{subject}: {problem}; expected the upstream's API key, on one line");
            self.mistake(at, message);
        });
        (Some(source), secret.ok())
    }

    /// Checks the file of root certificates. The server parses it.
    fn roots(&mut self, subject: &str, entry: &Spanned<PathBuf>) -> PathBuf {
        let path = self.base.join(entry.get_ref());
        let is_pem = files::read_to_string(&path, MAX_CA_BYTES)
            .is_ok_and(|text| text.contains("-----BEGIN CERTIFICATE-----"));
        if !is_pem {
            let message = format!(
                "{subject}: `ca_file` is `{}`, which is not a file of certificates; expected PEM, which begins with \
                 `-----BEGIN CERTIFICATE-----`",
                path.display()
            );
            self.mistake(entry.span().start, message);
        }
        path
    }
}
