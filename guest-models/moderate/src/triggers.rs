//! Reasons to ask the language model although the classifier's score is far from the threshold: the
//! score may be wrong. One function for each.

use guest_sdk::Fault;
use guest_sdk::settings::Settings;
use guest_sdk::text::folded;

use crate::categories::THRESHOLD;
use crate::odds::logit;
use crate::verdict::Row;

/// The setting.
const SETTING: &str = "cascade.triggers";

/// Classifiers, or a category and a narrower one, disagree if one reaches its threshold and the
/// other stays this far below its own, in log-odds.
const DISAGREEMENT: f32 = 2.0;

/// A score is near a cutoff within this distance of it, in log-odds.
const NEAR: f32 = 1.5;

/// Categories, and narrower ones beside those that their names tell (`hate/threatening`).
const NARROWER: [(&str, &str); 1] = [("hate", "sexism")];

/// Words for groups of people. Classifiers of hate and insults learn some of them as signs of both.
const IDENTITY_TERMS: &str = "\
african africans american americans arab arabs asian asians atheist atheists autistic bisexual black blacks blind \
buddhist catholic catholics chinese christian christians deaf disabled female females feminist feminists gay gays \
girl girls gypsy gypsies hindu hindus hispanic hispanics homosexual homosexuals immigrant immigrants indian indians \
islam islamic jew jewish jews latina latino latinos lesbian lesbians lgbt lgbtq man men mexican mexicans migrant \
migrants mosque muslim muslims nonbinary pakistani queer refugee refugees roma sikh sikhs trans transgender \
wheelchair white whites woman women";

/// A reason to ask.
#[derive(Clone, Copy)]
struct Trigger {
    name: &'static str,
    /// True if the score of the category may be wrong; with the rows of all categories, and true if
    /// a text has an identity term.
    fires: fn(&Row<'_>, &[Row<'_>], bool) -> bool,
}

/// All triggers, each with its name.
const ALL: [Trigger; 4] = [
    Trigger { name: "disagreement", fires: disagreement },
    Trigger { name: "unknown-words", fires: unknown_words },
    Trigger { name: "identity-terms", fires: identity_terms },
    Trigger { name: "long-text", fires: long_text },
];

/// The configured triggers.
#[derive(Clone)]
pub(crate) struct Triggers(Vec<Trigger>);

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|trigger| trigger.name)).finish()
    }
}

impl Triggers {
    /// Reads the setting: names with commas between them; by default all.
    ///
    /// # Errors
    ///
    /// `internal` for an unknown name.
    pub(crate) fn read(settings: &Settings) -> Result<Triggers, Fault> {
        let Some(text) = settings.text(SETTING) else { return Ok(Triggers(ALL.to_vec())) };
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let find = |name: &str| {
            ALL.into_iter().find(|trigger| trigger.name == name).ok_or_else(|| {
                let known = ALL.map(|trigger| trigger.name).join(", ");
                Fault::Internal(format!("setting `{SETTING}`: expected some of {known}, found `{name}`"))
            })
        };
        Ok(Triggers(names.map(find).collect::<Result<_, _>>()?))
    }

    /// Names of the triggers that fire for `row`, one of `rows`, which have a classifier's findings
    /// on `texts`. None fires for a category without a score or that cannot be flagged.
    pub(crate) fn fired<'t>(
        &'t self,
        row: &'t Row<'_>,
        rows: &'t [Row<'_>],
        has_identity_term: bool,
    ) -> impl Iterator<Item = &'static str> + 't {
        let can_fire = row.threshold.is_some() && row.text.score().is_some();
        let all = self.0.iter().filter(move |_| can_fire);
        all.filter(move |trigger| (trigger.fires)(row, rows, has_identity_term)).map(|trigger| trigger.name)
    }
}

/// Another classifier, or a narrower category, contradicts the score.
fn disagreement(row: &Row<'_>, rows: &[Row<'_>], _: bool) -> bool {
    let Some(own) = margin(row, row.text.score()) else { return false };
    let contradict = |one: f32, other: f32| one.max(other) >= 0.0 && one.min(other) <= -DISAGREEMENT;
    let of_classifiers = row.others.iter().filter_map(|score| margin(row, Some(*score)));
    // A category contains its narrower ones, not the reverse.
    let narrower = rows.iter().filter(|other| is_narrower(other.name, row.name));
    let narrower = narrower.filter_map(|other| margin(other, other.text.score()));
    of_classifiers.into_iter().any(|other| contradict(own, other))
        || narrower.into_iter().any(|other| other >= 0.0 && own <= -DISAGREEMENT)
}

/// The classifier has not seen many of the words.
fn unknown_words(row: &Row<'_>, _: &[Row<'_>], _: bool) -> bool {
    row.reading.has_strange_words
}

/// The text has a word for a group of people, and the score is near the threshold.
fn identity_terms(row: &Row<'_>, _: &[Row<'_>], has_identity_term: bool) -> bool {
    has_identity_term && margin(row, row.text.score()).is_some_and(|margin| margin.abs() <= NEAR)
}

/// The text is long, or the classifier read only its beginning.
fn long_text(row: &Row<'_>, _: &[Row<'_>], _: bool) -> bool {
    row.reading.is_long
}

/// Log-odds of a score relative to the threshold.
fn margin(row: &Row<'_>, score: Option<f32>) -> Option<f32> {
    Some(logit(score?) - logit(row.threshold.unwrap_or(THRESHOLD)))
}

fn is_narrower(name: &str, of: &str) -> bool {
    name.strip_prefix(of).is_some_and(|rest| rest.starts_with('/')) || NARROWER.contains(&(of, name))
}

/// True if a text has one of the identity terms.
pub(crate) fn has_identity_term<T: AsRef<str>>(texts: &[T]) -> bool {
    texts.iter().any(|text| {
        let line: String = folded(text.as_ref()).flat_map(char::to_lowercase).collect();
        let mut words = line.split(|character: char| !character.is_alphanumeric());
        words.any(|word| !word.is_empty() && IDENTITY_TERMS.split(' ').any(|term| term == word))
    })
}

#[cfg(test)]
mod tests {
    use guest_sdk::Tier;

    use super::*;
    use crate::reading::Reading;
    use crate::verdict::Finding;

    fn row(name: &'static str, score: f32) -> Row<'static> {
        Row::of_texts(name, 0.5, Finding::Score(score, Tier::Classifier))
    }

    fn names(row: &Row<'_>, rows: &[Row<'_>], texts: &[&str]) -> Vec<&'static str> {
        Triggers(ALL.to_vec()).fired(row, rows, has_identity_term(texts)).collect()
    }

    #[test]
    fn contradicting_scores_are_disagreement() {
        for (own, other, expected) in
            [(0.1, 0.6, true), (0.6, 0.1, true), (0.6, 0.4, false), (0.1, 0.2, false), (0.9, 0.6, false)]
        {
            let row = Row { others: vec![other], ..row("harassment", own) };
            assert_eq!(names(&row, &[], &[""]), vec!["disagreement"; usize::from(expected)], "{own} {other}");
        }
    }

    #[test]
    fn narrower_category_contradicts_its_wider_one() {
        for (narrower, own, score, expected) in [
            ("sexism", 0.1, 0.8, true),
            ("hate/threatening", 0.1, 0.8, true),
            ("hate/threatening", 0.9, 0.1, false),
            ("hateful", 0.1, 0.8, false),
            ("harassment", 0.1, 0.8, false),
        ] {
            let rows = [row("hate", own), row(narrower, score)];
            let expected = vec!["disagreement"; usize::from(expected)];
            assert_eq!(names(&rows[0], &rows, &[""]), expected, "{narrower}");
            assert!(names(&rows[1], &rows, &[""]).is_empty(), "{narrower}");
        }
        // One that is only reported counts by the usual threshold.
        let reported = Row { threshold: None, ..row("sexism", 0.8) };
        assert!(names(&row("sexism", 0.8), &[reported], &[""]).is_empty());
        let rows = [row("hate", 0.1), Row { threshold: None, ..row("sexism", 0.8) }];
        assert_eq!(names(&rows[0], &rows, &[""]), ["disagreement"]);
        assert!(names(&rows[1], &rows, &[""]).is_empty(), "it cannot be flagged");
    }

    #[test]
    fn identity_terms_count_near_the_threshold() {
        for (score, text, expected) in [
            (0.3, "My Muslim neighbours", true),
            (0.8, "all WOMEN, all day", true),
            (0.99, "my muslim neighbours", false),
            (0.01, "my muslim neighbours", false),
            (0.3, "blackberry manners", false),
            (0.3, "", false),
        ] {
            let expected = vec!["identity-terms"; usize::from(expected)];
            assert_eq!(names(&row("hate", score), &[], &[text]), expected, "{score} {text}");
        }
    }

    #[test]
    fn strange_and_long_texts_fire_for_judged_categories() {
        let reading = Reading { has_strange_words: true, is_long: true };
        let judged = Row { reading, ..row("hate", 0.01) };
        assert_eq!(names(&judged, &[], &[""]), ["unknown-words", "long-text"]);
        let unjudged = Row { reading, text: Finding::Gap("no model"), ..row("hate", 0.01) };
        assert!(names(&unjudged, &[], &[""]).is_empty());
    }

    #[test]
    fn setting_names_triggers() {
        let read = |text: &str| {
            let pairs = vec![(SETTING.to_owned(), text.to_owned())];
            Triggers::read(&Settings::from_pairs(pairs)).map(|found| format!("{found:?}"))
        };
        assert_eq!(read("long-text , disagreement").unwrap(), r#"["long-text", "disagreement"]"#);
        assert_eq!(read("").unwrap(), "[]");
        let Err(Fault::Internal(message)) = read("long") else { panic!("`long` passes") };
        assert!(message.ends_with("identity-terms, long-text, found `long`"), "{message}");
        assert_eq!(Triggers::read(&Settings::from_pairs(Vec::new())).unwrap().0.len(), ALL.len());
    }
}
