//! Checks the self-tests of components.

use super::Checker;
use crate::component_test::{ComponentTest, TestImage};
use crate::place::Place;
use crate::{data_url, file};

/// Maximum number of tests of a component.
const MAX: usize = 64;

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
