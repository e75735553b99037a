//! The settings of an export: its JSON files, and the licence in its README.

use anyhow::bail;
use serde_json::Value;

use super::export::Export;
use crate::limits::MAX_SETTINGS_BYTES;

/// Optional files of an export beside its model and tokenizer; config.json is required.
pub(super) const FILES: [&str; 7] = [
    "config.json",
    "tokenizer_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "README.md",
];

/// Settings of an export; null for a missing file.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// config.json
    pub(super) config: Value,
    /// tokenizer_config.json
    pub(super) tokenizer: Value,
    /// modules.json of sentence-transformers
    pub(super) modules: Value,
    /// 1_Pooling/config.json
    pub(super) pooling: Value,
    /// sentence_bert_config.json
    pub(super) sentence: Value,
    /// config_sentence_transformers.json
    pub(super) prompts: Value,
    /// SPDX expression of the licence.
    pub(super) license: Option<String>,
}

impl Settings {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If config.json is missing, or a file is not JSON.
    pub(super) fn read(export: &Export) -> anyhow::Result<Self> {
        let config = export.json(FILES[0])?;
        if !config.is_object() {
            let found = if config.is_null() { "is missing" } else { "is not a JSON object" };
            bail!(
                "`{}` {found}; expected the configuration of an exported model, as `optimum-cli export onnx` \
                 writes it",
                export.path.join(FILES[0]).display()
            );
        }
        let readme = export.bytes(FILES[6], MAX_SETTINGS_BYTES).ok().flatten();
        let license = readme.and_then(|text| license(&String::from_utf8_lossy(&text)));
        Ok(Settings {
            config,
            tokenizer: export.json(FILES[1])?,
            modules: export.json(FILES[2])?,
            pooling: export.json(FILES[3])?,
            sentence: export.json(FILES[4])?,
            prompts: export.json(FILES[5])?,
            license,
        })
    }

    /// Class of the model, such as `BertForSequenceClassification`.
    pub(super) fn architecture(&self) -> Option<&str> {
        self.config["architectures"][0].as_str()
    }

    /// Type of the model, such as `bert`.
    pub(super) fn model_type(&self) -> &str {
        self.config["model_type"].as_str().unwrap_or_default()
    }

    /// True for an export of sentence-transformers that ends with a pooling of tokens.
    pub(super) fn is_sentence_transformer(&self) -> bool {
        self.pooling.is_object() || self.has_module("Pooling")
    }

    /// True if modules.json lists a module of the type `name`.
    pub(super) fn has_module(&self, name: &str) -> bool {
        let modules = self.modules.as_array().map(Vec::as_slice).unwrap_or_default();
        modules.iter().any(|module| module["type"].as_str().is_some_and(|found| found.ends_with(name)))
    }
}

/// Licences as the hub names them, with their SPDX expressions.
const LICENSES: [(&str, &str); 12] = [
    ("apache-2.0", "Apache-2.0"),
    ("mit", "MIT"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("agpl-3.0", "AGPL-3.0-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
];

/// Reads the licence in the metadata of a README: a line `license: mit` between two lines `---`.
fn license(readme: &str) -> Option<String> {
    let mut lines = readme.lines();
    lines.next().filter(|line| line.trim_end() == "---")?;
    let mut metadata = lines.take_while(|line| line.trim_end() != "---");
    let found = metadata.find_map(|line| line.strip_prefix("license:"))?;
    let found = found.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    LICENSES.iter().find(|(name, _)| *name == found).map(|(_, expression)| (*expression).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn license_is_read_from_metadata_only() {
        assert_eq!(license("---\nlicense: mit\ntags: []\n---\n# A\n").as_deref(), Some("MIT"));
        assert_eq!(license("---\nlicense: \"Apache-2.0\"\n---\n").as_deref(), Some("Apache-2.0"));
        for text in
            ["# A\nlicense: mit\n", "---\ntags: []\n---\nlicense: mit\n", "---\nlicense: other\n---\n", ""]
        {
            assert_eq!(license(text), None, "{text}");
        }
    }
}
