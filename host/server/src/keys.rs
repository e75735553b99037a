//! API keys: the configuration holds their hashes and permissions.
//!
//! A key is 256 random bits, so its plain SHA-256 can be neither guessed nor looked up in a table.
//! A slow hash, as passwords need, would only add latency to every request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use infer_config::KeyConfig;
use infer_config::keys::KeyHash;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::MAX_KEY_BYTES;
use crate::rates::{Bucket, Wait};

/// All configured keys.
pub struct Keyring {
    keys: Vec<(KeyHash, Arc<Key>)>,
}

/// Permissions and limits of a key.
pub struct Key {
    /// Name in the configuration, for the log.
    pub name: String,
    /// Identity of the key: its name may later belong to another key.
    pub(crate) hash: KeyHash,
    components: Option<BTreeSet<String>>,
    models: Option<BTreeSet<String>>,
    bucket: Option<Bucket>,
    concurrency: Option<Arc<Semaphore>>,
}

/// Reason why requests of a key are rejected for now.
#[derive(Debug)]
pub enum Rejected {
    /// The token bucket is empty.
    Rate(Wait),
    /// The concurrency limit is reached.
    Concurrency,
}

impl Keyring {
    /// Builds the keys of a configuration.
    #[must_use]
    pub fn new(configured: &BTreeMap<String, KeyConfig>) -> Self {
        let key = |(name, config): (&String, &KeyConfig)| {
            let key = Key {
                name: name.clone(),
                hash: config.hash,
                components: config.components.clone(),
                models: config.models.clone(),
                bucket: config.rate.map(Bucket::new),
                concurrency: config.concurrency.map(|max| Arc::new(Semaphore::new(max))),
            };
            (config.hash, Arc::new(key))
        };
        Keyring { keys: configured.iter().map(key).collect() }
    }

    /// Builds the keys of `configured` to replace these, which were built from `before`. An
    /// unchanged key keeps its counters.
    #[must_use]
    pub fn next(
        &self,
        configured: &BTreeMap<String, KeyConfig>,
        before: &BTreeMap<String, KeyConfig>,
    ) -> Self {
        let mut next = Keyring::new(configured);
        for (_, key) in &mut next.keys {
            let same = configured.get(&key.name) == before.get(&key.name);
            let old = self.keys.iter().find(|(_, old)| old.name == key.name);
            if let (true, Some((_, old))) = (same, old) {
                *key = old.clone();
            }
        }
        next
    }

    /// True if no key is configured, so that requests need none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Looks up the key that a client sent.
    ///
    /// Every hash is compared in full, so the time taken does not reveal the nearest one.
    #[must_use]
    pub fn find(&self, sent: &str) -> Option<Arc<Key>> {
        if sent.len() > MAX_KEY_BYTES {
            return None;
        }
        let hash = KeyHash::of(sent);
        let mut found = u32::MAX;
        for (index, (known, _)) in (0_u32..).zip(&self.keys) {
            found.conditional_assign(&index, known.0.ct_eq(&hash.0));
        }
        self.keys.get(found as usize).map(|(_, key)| key.clone())
    }
}

impl Key {
    /// True if the key may use the component `name`.
    #[must_use]
    pub fn may_use(&self, name: &str) -> bool {
        self.components.as_ref().is_none_or(|components| components.contains(name))
    }

    /// True if the key may call the model `name` directly.
    #[must_use]
    pub fn may_ask(&self, name: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(name))
    }

    /// Counts one request, which is in flight until the returned permit is dropped.
    ///
    /// # Errors
    ///
    /// If a rate limit or the concurrency limit of the key is exceeded.
    pub fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Rejected> {
        let permit = match &self.concurrency {
            None => None,
            Some(permits) => Some(permits.clone().try_acquire_owned().map_err(|_| Rejected::Concurrency)?),
        };
        self.bucket.as_ref().map_or(Ok(()), Bucket::take).map_err(Rejected::Rate)?;
        Ok(permit)
    }
}

#[cfg(test)]
mod tests {
    use infer_config::Rate;

    use super::*;

    fn config(key: &str) -> KeyConfig {
        KeyConfig { hash: KeyHash::of(key), components: None, models: None, rate: None, concurrency: None }
    }

    fn keyring(keys: &[(&str, KeyConfig)]) -> Keyring {
        let keys = keys.iter().map(|(name, config)| ((*name).to_owned(), config.clone()));
        Keyring::new(&keys.collect())
    }

    #[test]
    fn key_is_found_by_exact_text() {
        let ring = keyring(&[("a", config("one")), ("b", config("two")), ("c", config("three"))]);
        let name = |sent: &str| ring.find(sent).map(|key| key.name.clone());
        assert_eq!(name("one").as_deref(), Some("a"));
        assert_eq!(name("three").as_deref(), Some("c"));
        for wrong in ["", "on", "one ", "ONE", &"one".repeat(1_000)] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert!(keyring(&[]).find("one").is_none());
    }

    #[test]
    fn key_permits_listed_names() {
        let only = |name: &str| Some(BTreeSet::from([name.to_owned()]));
        let ring = keyring(&[
            ("all", config("all")),
            ("one", KeyConfig { components: only("moderate"), models: only("phi3"), ..config("one") }),
            ("none", KeyConfig { components: Some(BTreeSet::new()), ..config("none") }),
        ]);
        let may = |key: &str| {
            let key = ring.find(key).unwrap();
            (key.may_use("moderate"), key.may_use("classify"), key.may_ask("phi3"), key.may_ask("smollm2"))
        };
        assert_eq!(may("all"), (true, true, true, true));
        assert_eq!(may("one"), (true, false, true, false));
        assert_eq!(may("none"), (false, false, true, true));
    }

    #[test]
    fn concurrency_is_released_with_request() {
        let ring = keyring(&[("two", KeyConfig { concurrency: Some(2), ..config("two") })]);
        let key = ring.find("two").unwrap();
        let in_flight = (key.enter().unwrap(), key.enter().unwrap());
        assert!(matches!(key.enter(), Err(Rejected::Concurrency)));
        drop(in_flight);
        assert!(key.enter().is_ok());
    }

    #[test]
    fn unchanged_key_keeps_its_bucket() {
        let rate = Rate { per_second: 1.try_into().unwrap(), burst: 1.try_into().unwrap() };
        let with = |concurrency| {
            let slow = KeyConfig { rate: Some(rate), concurrency, ..config("slow") };
            BTreeMap::from([("slow".to_owned(), slow)])
        };
        let (one, other) = (with(None), with(Some(7)));
        let ring = Keyring::new(&one);
        assert!(ring.find("slow").unwrap().enter().is_ok());
        assert!(ring.next(&one, &one).find("slow").unwrap().enter().is_err(), "its bucket is empty");
        assert!(ring.next(&other, &one).find("slow").unwrap().enter().is_ok(), "it has a new bucket");
    }

    #[test]
    fn requests_beyond_burst_are_rejected() {
        let rate = Rate { per_second: 1.try_into().unwrap(), burst: 3.try_into().unwrap() };
        let ring = keyring(&[("slow", KeyConfig { rate: Some(rate), ..config("slow") })]);
        let key = ring.find("slow").unwrap();
        assert!((0..3).all(|_| key.enter().is_ok()));
        let Err(Rejected::Rate(wait)) = key.enter() else { panic!("a fourth request passed") };
        assert_eq!(wait.seconds(), 1);
    }
}
