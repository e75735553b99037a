//! Checks that each setting is one that the guest reads, so that a typo is not ignored.

use guest_sdk::Fault;
use guest_sdk::settings::Settings;

use crate::classifiers::{Assignment, COMBINE};
use crate::policies;

/// Settings of a fixed name.
const KEYS: [&str; 12] = [
    "cascade.high",
    "cascade.low",
    "cascade.required",
    "cascade.triggers",
    "cascade.weight",
    COMBINE,
    "image.max_count",
    "image.max_views",
    "max_pixels",
    "ocr.max_boxes",
    "ocr.max_side",
    "ocr.min_score",
];

/// Checks the keys of the settings. `assignments` are the categories of the verdict.
///
/// # Errors
///
/// `internal` for the first unknown key.
pub(crate) fn check(settings: &Settings, assignments: &[Assignment]) -> Result<(), Fault> {
    let policy = settings.text("policy.categories").unwrap_or_default();
    let is_category = |name: &str| {
        assignments.iter().any(|assignment| assignment.name == name)
            || policy.split(',').any(|own| own.trim() == name)
    };
    for key in settings.keys() {
        let is_free = ["models.", "request.", "category."].iter().any(|prefix| key.starts_with(prefix));
        if is_free || KEYS.contains(&key) || policies::is_known(key) {
            continue;
        }
        let expected = match key.strip_prefix("threshold.") {
            Some(name) if is_category(name) => continue,
            Some(_) => {
                let names = assignments.iter().map(|assignment| assignment.name.as_str());
                format!("`threshold.` and a category: {}", names.collect::<Vec<_>>().join(", "))
            }
            None => format!(
                "`threshold.CATEGORY`, `category.CATEGORY`, one of {}, or `policy.` and one of {}",
                KEYS.join(", "),
                policies::KEYS.join(", ")
            ),
        };
        return Err(Fault::Internal(format!("setting `{key}` is unknown; expected {expected}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_keys(keys: &[&str]) -> Result<(), Fault> {
        let pairs = keys.iter().map(|&key| (key.to_owned(), "spoilers, 0.5".to_owned())).collect();
        let hate = Assignment { name: "hate".to_owned(), ..Assignment::default() };
        check(&Settings::from_pairs(pairs), &[hate])
    }

    #[test]
    fn known_settings_pass() {
        let keys = [
            "models.text.task",
            "category.hate",
            "threshold.hate",
            "policy.text",
            "policy.hate.text",
            "max_pixels",
        ];
        assert!(check_keys(&keys).is_ok());
        assert!(check_keys(&["policy.categories", "threshold.spoilers"]).is_ok());
    }

    #[test]
    fn unknown_settings_are_named() {
        for (key, expected) in [
            ("treshold.hate", "setting `treshold.hate` is unknown; expected `threshold.CATEGORY`"),
            ("threshold.hat", "expected `threshold.` and a category: hate"),
            ("max_pixel", "image.max_views, max_pixels"),
            ("policy.hate.txt", "setting `policy.hate.txt` is unknown"),
        ] {
            let Err(Fault::Internal(message)) = check_keys(&[key]) else { panic!("{key} passes") };
            assert!(message.contains(expected), "{message}");
        }
    }
}
