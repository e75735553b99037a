//! `[[components.NAME.tests]]`: a request that a component gets before it is served, and the
//! expected answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A request and the expected verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentTest {
    /// Text of the request.
    pub input: Option<String>,
    /// Image of the request, with or without a text.
    pub image: Option<TestImage>,
    /// Expected verdict of a moderator.
    pub flagged: Option<bool>,
    /// Expected scores of a moderator, by category.
    pub scores: BTreeMap<String, f64>,
    /// Expected first label of a classifier.
    pub label: Option<String>,
    /// Maximum difference of a score.
    pub tolerance: f64,
}

/// Source of a test's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestImage {
    /// Path of an image file.
    Path(PathBuf),
    /// `data:` URL with the image in base64.
    Data(String),
}

impl fmt::Display for ComponentTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ComponentTest { input, image, flagged, scores, label, tolerance } = self;
        let mut parts = Vec::new();
        parts.extend(input.iter().map(|input| format!("input {input:?}")));
        parts.extend(image.iter().map(|image| match image {
            TestImage::Path(path) => format!("image {}", path.display()),
            TestImage::Data(data) => format!("image {data}"),
        }));
        parts.extend(flagged.iter().map(|flagged| format!("flagged {flagged}")));
        parts.extend(scores.iter().map(|(category, score)| format!("{category} {score} ± {tolerance}")));
        parts.extend(label.iter().map(|label| format!("label {label}")));
        f.write_str(&parts.join(", "))
    }
}
