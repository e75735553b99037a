//! `[[components.NAME.tests]]`: what a component is asked before it is served, and what it has to
//! answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A request and its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentTest {
    /// A text.
    pub input: Option<String>,
    /// An image, beside the text or alone.
    pub image: Option<TestImage>,
    /// Whether a moderator flags it.
    pub flagged: Option<bool>,
    /// A moderator's scores of some categories.
    pub scores: BTreeMap<String, f64>,
    /// A classifier's first label.
    pub label: Option<String>,
    /// The most that a score may differ.
    pub tolerance: f64,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestImage {
    /// A file.
    Path(PathBuf),
    /// A `data:` URL with its bytes in base64.
    Data(String),
}

impl fmt::Display for ComponentTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ComponentTest { input, image, flagged, scores, label, tolerance } = self;
        let mut said = Vec::new();
        said.extend(input.iter().map(|input| format!("input {input:?}")));
        said.extend(image.iter().map(|image| match image {
            TestImage::Path(path) => format!("image {}", path.display()),
            TestImage::Data(data) => format!("image {data}"),
        }));
        said.extend(flagged.iter().map(|flagged| format!("flagged {flagged}")));
        said.extend(scores.iter().map(|(category, score)| format!("{category} {score} ± {tolerance}")));
        said.extend(label.iter().map(|label| format!("label {label}")));
        f.write_str(&said.join(", "))
    }
}
