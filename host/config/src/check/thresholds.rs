//! Checks the file of thresholds of a component.

use std::collections::BTreeSet;

use super::Checker;
use crate::place::Place;
use crate::table;
use crate::thresholds::Thresholds;

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
        let given: BTreeSet<_> = thresholds.as_settings().map(|(key, _)| key).collect();
        for key in component.settings.iter().flatten().map(|(key, _)| key).filter(|key| given.contains(*key))
        {
            let message = format!(
                "{subject}: the setting `{key}` is also in `{}`; remove one of the two",
                path.display()
            );
            self.mistake(entry.span().start, message);
        }
        Some(thresholds)
    }
}
