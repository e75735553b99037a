//! `[[components.NAME.tests]]`: what a component is asked before it is served, and what it has to
//! answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::check::Checker;
use super::{Place, file};
use crate::data_url;

/// The most tests of a component.
const MAX: usize = 64;

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

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn tests(&mut self, subject: &str, at: usize, typed: Vec<file::Test>) -> Vec<ComponentTest> {
        if typed.len() > MAX {
            self.mistake(at, format!("{subject}: {} tests, expected at most {MAX}", typed.len()));
        }
        let mut tests = Vec::with_capacity(typed.len().min(MAX));
        for (index, test) in typed.into_iter().enumerate().take(MAX) {
            let subject = format!("{subject}: tests[{index}]");
            let image = test.image.as_ref().map(|image| {
                let text = image.get_ref();
                if data_url::is_data(text) {
                    if let Err(error) = data_url::decode(text) {
                        self.mistake(image.span().start, format!("{subject}: `image`: {error}"));
                    }
                    return TestImage::Data(text.clone());
                }
                let path = self.base.join(text);
                if !path.is_file() {
                    let message = format!(
                        "{subject}: `image` is `{}`, which is no file; expected a path from the configuration's folder, or \
                         `data:image/png;base64,…`",
                        path.display()
                    );
                    self.mistake(image.span().start, message);
                }
                TestImage::Path(path)
            });
            if test.input.is_none() && image.is_none() {
                self.mistake(at, format!("{subject}: expected `input`, `image` or both"));
            }
            let tolerance = test.tolerance.unwrap_or(0.01);
            if !(0.0..=1.0).contains(&tolerance) {
                self.mistake(at, format!("{subject}: `tolerance` is {tolerance}, expected 0 to 1"));
            }
            for (category, score) in test.scores.iter().filter(|(_, score)| !(0.0..=1.0).contains(*score)) {
                self.mistake(at, format!("{subject}: `{category}` is {score}, expected 0 to 1"));
            }
            let file::Test { input, flagged, scores, label, .. } = test;
            tests.push(ComponentTest { input, image, flagged, scores, label, tolerance });
        }
        tests
    }
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
