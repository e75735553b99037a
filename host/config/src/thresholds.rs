//! Thresholds of a component, as `infer calibrate` writes them, and the versions that they hold
//! for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use infer_engine::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits::MAX_THRESHOLDS_BYTES;

/// Version of the file format.
const VERSION: u32 = 1;

/// Prefix of the settings that the thresholds become.
const SETTING: &str = "threshold.";

const HEAD: &str = "# Written by `infer calibrate`. The key `thresholds` of the component names this file. It is valid for\n\
                    # these versions of the component, its settings and its models only.\n\n";

/// A file of thresholds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The file.
    #[serde(skip)]
    path: PathBuf,
    version: u32,
    /// SHA-256 of the component.
    pub component: String,
    /// SHA-256 of the settings that scores depend on, by [`settings_hash`].
    pub settings: String,
    /// The bound that holds for the thresholds, if there are any.
    #[serde(default)]
    pub bound: Option<Bound>,
    /// Hashes of the models by the guest's names.
    pub models: BTreeMap<String, String>,
    /// Minimum scores of flagged content by category.
    #[serde(default)]
    pub thresholds: BTreeMap<String, f32>,
    /// The guarantee of each threshold.
    #[serde(default)]
    pub guarantees: BTreeMap<String, Guarantee>,
    /// Thresholds by language and category, which are reported and not applied.
    #[serde(default)]
    pub languages: BTreeMap<String, BTreeMap<String, f32>>,
    /// The use of a language model, if it was fitted.
    #[serde(default)]
    pub cascade: Option<Cascade>,
    /// The data that they were fitted to.
    pub data: Data,
}

/// The use of a language model behind the classifiers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// Maximum share of the texts that reach the language model.
    pub language_budget: f64,
    /// Share of the data that reach it with these settings.
    pub reached: f64,
    /// The settings, by their names.
    pub settings: BTreeMap<String, f32>,
}

/// The bound of an error rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// `max-fpr` or `max-fnr`.
    pub rate: String,
    /// Maximum of the rate.
    pub max: f64,
    /// Probability that a threshold respects it.
    pub confidence: f64,
}

/// The evidence for a threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guarantee {
    /// Errors at the threshold.
    pub errors: usize,
    /// Examples that could be such errors.
    pub of: usize,
    /// Upper bound of the rate.
    pub upper: f64,
}

/// The data that thresholds were fitted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Name of the file.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Examples that were used.
    pub examples: usize,
}

/// The versions that thresholds hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// SHA-256 of the component.
    pub component: String,
    /// Hashes of the models by the guest's names.
    pub models: BTreeMap<String, String>,
    /// SHA-256 of the settings that scores depend on.
    pub settings: String,
}

impl Thresholds {
    /// A file without any threshold.
    #[must_use]
    pub fn new(versions: Versions, data: Data) -> Self {
        let Versions { component, models, settings } = versions;
        Thresholds {
            path: PathBuf::new(),
            version: VERSION,
            component,
            settings,
            bound: None,
            models,
            thresholds: BTreeMap::new(),
            guarantees: BTreeMap::new(),
            languages: BTreeMap::new(),
            cascade: None,
            data,
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is invalid.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = files::read_to_string(path, MAX_THRESHOLDS_BYTES).context("cannot be read")?;
        let thresholds: Thresholds =
            toml::from_str(&text).map_err(|error| anyhow::anyhow!(error.message().replace('\n', " ")))?;
        let Thresholds { version, thresholds: values, .. } = &thresholds;
        ensure!(*version == VERSION, "`version` is {version}, expected {VERSION}");
        if let Some((category, value)) = values.iter().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
            bail!("the threshold of `{category}` is {value}, expected 0 to 1");
        }
        let mut fitted = thresholds.cascade.iter().flat_map(|cascade| &cascade.settings);
        if let Some((key, value)) = fitted.find(|(key, value)| !is_fitted(key) || !value.is_finite()) {
            bail!("`cascade.settings` has `{key}` = {value}, expected finite values of {FITTED}");
        }
        Ok(Thresholds { path: path.to_owned(), ..thresholds })
    }

    /// The file as text.
    ///
    /// # Errors
    ///
    /// If it cannot be serialised; thresholds of a calibration always can.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// The settings of the guest that apply the thresholds and the use of the language model.
    pub fn as_settings(&self) -> impl Iterator<Item = (String, String)> {
        let threshold =
            |(category, value): (&String, &f32)| (format!("{SETTING}{category}"), value.to_string());
        let of_cascade = self.cascade.iter().flat_map(|cascade| &cascade.settings);
        let of_cascade = of_cascade.map(|(key, value)| (key.clone(), value.to_string()));
        self.thresholds.iter().map(threshold).chain(of_cascade)
    }

    /// Checks that component `name` is the one that the thresholds were fitted to.
    ///
    /// # Errors
    ///
    /// If a version differs; names it, and the command that renews the file.
    pub fn check(&self, name: &str, found: &Versions) -> anyhow::Result<()> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: Option<&String>, found: Option<&String>| {
            if expected != found {
                let shown =
                    |hash: Option<&String>| hash.map_or("none".to_owned(), |hash| format!("sha256 {hash}"));
                differences.push(format!(
                    "{what} has {}, it was fitted to {}",
                    shown(found),
                    shown(expected)
                ));
            }
        };
        compare("the component", Some(&self.component), Some(&found.component));
        compare("the set of other settings", Some(&self.settings), Some(&found.settings));
        let names = self.models.keys().chain(found.models.keys()).collect::<std::collections::BTreeSet<_>>();
        for model in names {
            compare(&format!("model `{model}`"), self.models.get(model), found.models.get(model));
        }
        let Some(first) = differences.first() else { return Ok(()) };
        let mut message = format!("component `{name}`: `{}` is stale: {first}", self.path.display());
        if differences.len() > 1 {
            let _ = write!(message, " (and {} more)", differences.len() - 1);
        }
        let mut options = String::new();
        if let Some(Bound { rate, max, confidence }) = &self.bound {
            let _ = write!(options, " --{rate} {max} --confidence {confidence}");
        }
        if let Some(Cascade { language_budget, .. }) = &self.cascade {
            let _ = write!(options, " --language-budget {language_budget}");
        }
        let _ = write!(
            message,
            "; run `infer calibrate --component {name} --data {}{options} -o {}` on data like these, or remove \
             `thresholds`",
            self.data.file,
            self.path.display()
        );
        bail!(message)
    }
}

/// Description of the keys that [`is_fitted`] accepts.
const FITTED: &str = "`cascade.low`, `cascade.high`, `cascade.weight`, `policy.NAME.temperature` and \
                      `policy.NAME.threshold`";

/// True for a setting of the use of a language model that `infer calibrate` fits.
#[must_use]
pub fn is_fitted(key: &str) -> bool {
    let of_policy =
        |rest: &str| ["temperature", "threshold"].contains(&rest.rsplit('.').next().unwrap_or(rest));
    ["cascade.low", "cascade.high", "cascade.weight"].contains(&key)
        || key.strip_prefix("policy.").is_some_and(of_policy)
}

/// SHA-256 of the settings without those that are fitted, in 64 hexadecimal digits.
#[must_use]
pub fn settings_hash(settings: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    let is_own = |key: &str| !key.starts_with(SETTING) && !is_fitted(key);
    for (key, value) in settings.iter().filter(|(key, _)| is_own(key)) {
        for part in [key, value] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        Versions {
            component: "c".to_owned(),
            models: BTreeMap::from([("text".to_owned(), "m".to_owned())]),
            settings: settings_hash(&BTreeMap::new()),
        }
    }

    fn thresholds() -> Thresholds {
        let bound = Bound { rate: "max-fpr".to_owned(), max: 0.01, confidence: 0.95 };
        let data = Data { file: "posts.jsonl".to_owned(), sha256: "d".to_owned(), examples: 400 };
        let mut thresholds = Thresholds::new(versions(), data);
        thresholds.bound = Some(bound);
        thresholds.thresholds.insert("hate/threatening".to_owned(), 0.625);
        let guarantee = Guarantee { errors: 0, of: 400, upper: 0.0075 };
        thresholds.guarantees.insert("hate/threatening".to_owned(), guarantee);
        thresholds
    }

    fn read(text: &str) -> anyhow::Result<Thresholds> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thresholds.toml");
        std::fs::write(&path, text).unwrap();
        Thresholds::read(&path)
    }

    #[test]
    fn file_is_read_as_written() {
        let written = thresholds();
        let found = read(&written.text().unwrap()).unwrap();
        assert_eq!(Thresholds { path: PathBuf::new(), ..found }, written);
        let settings: Vec<_> = written.as_settings().collect();
        assert_eq!(settings, [("threshold.hate/threatening".to_owned(), "0.625".to_owned())]);
    }

    #[test]
    fn invalid_files_are_rejected() {
        let text = thresholds().text().unwrap();
        for (from, to, words) in [
            ("version = 1", "version = 2", "`version` is 2, expected 1"),
            ("0.625", "1.5", "the threshold of `hate/threatening` is 1.5"),
            ("0.625", "nan", "is NaN, expected 0 to 1"),
            ("component =", "komponent =", "unknown field `komponent`"),
        ] {
            let error = format!("{:#}", read(&text.replace(from, to)).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn other_versions_are_stale() {
        let thresholds = thresholds();
        thresholds.check("moderate", &versions()).unwrap();
        let settings = settings_hash(&BTreeMap::from([("cascade.required".to_owned(), "true".to_owned())]));
        let models = BTreeMap::from([("text".to_owned(), "other".to_owned())]);
        for (found, words) in [
            (
                Versions { component: "x".to_owned(), ..versions() },
                "the component has sha256 x, it was fitted to sha256 c",
            ),
            (Versions { settings, ..versions() }, "the set of other settings has"),
            (Versions { models, ..versions() }, "model `text` has sha256 other"),
            (Versions { models: BTreeMap::new(), ..versions() }, "model `text` has none"),
        ] {
            let error = thresholds.check("moderate", &found).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(
                error.contains("`infer calibrate --component moderate --data posts.jsonl --max-fpr 0.01"),
                "{error}"
            );
        }
        for key in ["threshold.hate", "cascade.low", "policy.threshold", "policy.hate.temperature"] {
            let own = BTreeMap::from([(key.to_owned(), "0.1".to_owned())]);
            assert_eq!(settings_hash(&own), settings_hash(&BTreeMap::new()), "{key} is fitted");
        }
    }

    #[test]
    fn use_of_a_language_model_becomes_settings() {
        let settings =
            BTreeMap::from([("cascade.low".to_owned(), 0.125), ("policy.hate.temperature".to_owned(), 2.5)]);
        let cascade = Some(Cascade { language_budget: 0.2, reached: 0.19, settings });
        let written = Thresholds { bound: None, cascade, thresholds: BTreeMap::new(), ..thresholds() };
        let text = written.text().unwrap();
        let found = read(&text).unwrap();
        let settings: Vec<_> = found.as_settings().collect();
        let expected = [("cascade.low", "0.125"), ("policy.hate.temperature", "2.5")];
        assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let other = Versions { component: "x".to_owned(), ..versions() };
        let error = found.check("moderate", &other).unwrap_err().to_string();
        assert!(error.contains("--data posts.jsonl --language-budget 0.2 -o"), "{error}");
        for (from, to) in [("cascade.low", "cascade.required"), ("0.125", "inf")] {
            let error = format!("{:#}", read(&text.replace(from, to)).unwrap_err());
            assert!(error.contains("expected finite values of `cascade.low`"), "{error}");
        }
    }
}
