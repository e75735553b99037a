//! Settings of the policies: of the only one, `policy.KEY`, or of several, `policy.NAME.KEY`.

use std::collections::BTreeSet;

use guest_sdk::Fault;
use guest_sdk::settings::{Setting, Settings};

use crate::builtin::ALL;

/// Prefix of the settings.
const PREFIX: &str = "policy.";

/// Maximum number of policies. Each is a question to the language model.
const MAX_POLICIES: usize = 8;

/// Keys of a policy.
pub(crate) const KEYS: [&str; 9] = [
    "categories",
    "choices",
    "examples",
    "max_bytes",
    "question",
    "rationale_tokens",
    "temperature",
    "text",
    "threshold",
];

/// Keys of which one makes a policy of the operator's own.
const OWN: [&str; 4] = ["categories", "examples", "question", "text"];

/// The settings of one policy. A setting without a name is the default of all policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicySettings<'s> {
    settings: &'s Settings,
    /// The name of the policy, if there are several.
    pub(crate) name: Option<&'s str>,
}

impl<'s> PolicySettings<'s> {
    /// The settings of each policy, in the order of the names: the built-in ones without one of the
    /// operator's own.
    ///
    /// # Errors
    ///
    /// `internal` for too many policies.
    pub(crate) fn all(settings: &'s Settings) -> Result<Vec<PolicySettings<'s>>, Fault> {
        let mut names: BTreeSet<_> = settings.keys().filter_map(split).filter_map(|(name, _)| name).collect();
        if !settings.keys().filter_map(split).any(|(_, key)| OWN.contains(&key)) {
            names.extend(ALL.iter().map(|own| own.name));
        }
        if names.len() > MAX_POLICIES {
            let found = names.len();
            return Err(Fault::Internal(format!(
                "settings `policy.NAME.KEY`: expected at most {MAX_POLICIES} names, found {found}"
            )));
        }
        if names.is_empty() {
            return Ok(vec![PolicySettings { settings, name: None }]);
        }
        Ok(names.into_iter().map(|name| PolicySettings { settings, name: Some(name) }).collect())
    }

    /// The name of the setting that counts for `key`: the policy's own if it is set.
    pub(crate) fn key(&self, key: &str) -> String {
        let own = self.name.map(|name| [PREFIX, name, ".", key].concat());
        own.filter(|own| self.settings.text(own).is_some()).unwrap_or_else(|| [PREFIX, key].concat())
    }

    /// The value of `key` as written, if it is set.
    pub(crate) fn text(&self, key: &str) -> Option<&'s str> {
        self.settings.text(&self.key(key))
    }

    /// The value of `key`, or `default` if it is not set.
    ///
    /// # Errors
    ///
    /// `internal` when it does not parse.
    pub(crate) fn get<T: Setting>(&self, key: &str, default: T) -> Result<T, Fault> {
        self.settings.get(&self.key(key), default)
    }

    /// True if the request asks for a reason.
    pub(crate) fn wants_reason(&self) -> bool {
        self.settings.text("request.explain") == Some("rationale")
    }
}

/// Splits `policy.NAME.KEY`, or `policy.KEY`, into name and key.
fn split(key: &str) -> Option<(Option<&str>, &str)> {
    let rest = key.strip_prefix(PREFIX)?;
    Some(rest.rsplit_once('.').map_or((None, rest), |(name, key)| (Some(name), key)))
}

/// True if `key` is a setting of a policy: without a name, or with one that could be a category.
pub(crate) fn is_known(key: &str) -> bool {
    split(key).is_some_and(|(name, key)| name.is_none_or(is_name) && KEYS.contains(&key))
}

/// True for a name of 1 to 64 lower-case letters, digits, `-` and `/`.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-/".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_settings_are_policies_of_their_own() {
        let pairs = [
            ("policy.hate.text", "No hate."),
            ("policy.text", "Be kind."),
            ("policy.spam.question", "Is it spam?"),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::from_pairs(pairs.to_vec());
        let found: Vec<_> = PolicySettings::all(&settings)
            .unwrap()
            .into_iter()
            .map(|own| (own.name, own.text("text"), own.text("question")))
            .collect();
        let expected =
            [(Some("hate"), Some("No hate."), None), (Some("spam"), Some("Be kind."), Some("Is it spam?"))];
        assert_eq!(found, expected);
        let one = Settings::from_pairs(pairs[1..2].to_vec());
        assert_eq!(PolicySettings::all(&one).unwrap()[0].name, None);
        let builtin = Settings::from_pairs(vec![("policy.hate.max_bytes".to_owned(), "64".to_owned())]);
        let names: Vec<_> = PolicySettings::all(&builtin).unwrap().iter().map(|own| own.name).collect();
        assert_eq!(names, [Some("harassment"), Some("hate")]);
    }

    #[test]
    fn keys_are_known_with_and_without_a_name() {
        for (key, expected) in [
            ("policy.text", true),
            ("policy.hate/threatening.text", true),
            ("policy.hate.txt", false),
            ("policy.Hate.text", false),
            ("policy..text", false),
            ("cascade.low", false),
        ] {
            assert_eq!(is_known(key), expected, "{key}");
        }
    }
}
