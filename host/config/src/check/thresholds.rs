//! Checks the file of thresholds of a component.

use super::Checker;
use crate::place::Place;
use crate::table;
use crate::thresholds::{SETTING, Thresholds};

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn thresholds(&mut self, subject: &str, component: &table::Component) -> Option<Thresholds> {
        let entry = component.thresholds.as_ref()?;
        let path = self.base.join(entry.get_ref());
        let thresholds = match Thresholds::read(&path) {
            Ok(thresholds) => thresholds,
            Err(error) => {
                let message = format!(
                    "{subject}: `thresholds` is `{}`: {error:#}; expected a file that `infer calibrate` wrote, so \
                     remove this line until it has",
                    path.display()
                );
                self.mistake(entry.span().start, message);
                return None;
            }
        };
        for key in component.settings.iter().flatten().map(|(key, _)| key) {
            let category = key.strip_prefix(SETTING).unwrap_or_default();
            if thresholds.thresholds.contains_key(category) {
                let message = format!(
                    "{subject}: the setting `{key}` and `{}` both give the threshold of `{category}`; remove one of \
                     the two",
                    path.display()
                );
                self.mistake(entry.span().start, message);
            }
        }
        Some(thresholds)
    }
}
