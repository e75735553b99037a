//! Checks the self-tests of components.

use toml::Spanned;

use super::Checker;
use crate::component_test::{ComponentTest, TestImage};
use crate::data_url;
use crate::limits::MAX_TESTS;
use crate::place::Place;
use crate::table;

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn tests(&mut self, subject: &str, at: usize, tests: Vec<table::Test>) -> Vec<ComponentTest> {
        if tests.len() > MAX_TESTS {
            self.mistake(at, format!("{subject}: {} tests, expected at most {MAX_TESTS}", tests.len()));
        }
        let tests = tests.into_iter().take(MAX_TESTS).enumerate();
        tests.map(|(index, test)| self.test(&format!("{subject}: tests[{index}]"), at, test)).collect()
    }

    fn test(&mut self, subject: &str, at: usize, test: table::Test) -> ComponentTest {
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
                    "{subject}: `image` is `{}`, which is not a file; expected a path from the configuration's \
                     folder, or `data:image/png;base64,…`",
                    path.display()
                );
                self.mistake(image.span().start, message);
            }
            TestImage::Path(path)
        });
        if test.input.is_none() && image.is_none() {
            self.mistake(at, format!("{subject}: expected `input`, `image` or both"));
        }
        let tolerance = test.tolerance().key.real();
        let tolerance = self.real(&format!("{subject}: "), test.tolerance()).unwrap_or(tolerance);
        for (category, score) in test.scores.iter().flatten() {
            let number = *score.get_ref();
            if !(0.0..=1.0).contains(&number) {
                let message = format!("{subject}: `{category}` is {number}, expected 0 to 1");
                self.mistake(score.span().start, message);
            }
        }
        let table::Test { input, flagged, scores, label, .. } = test;
        ComponentTest {
            input: input.map(Spanned::into_inner),
            image,
            flagged,
            scores: scores.into_iter().flatten().map(|(name, score)| (name, score.into_inner())).collect(),
            label: label.map(Spanned::into_inner),
            tolerance,
        }
    }
}
