//! The configured classifiers, and which of them judges each category.

use guest_sdk::Fault;
use guest_sdk::card::Card;
use guest_sdk::settings::Settings;

use crate::categories::{self, Advised, Category, Choice, LANGUAGE, Rule};

/// The setting that says how several classifiers of texts judge a category together.
pub(crate) const COMBINE: &str = "combine";

/// Kind of parts that a classifier reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Texts,
    /// Texts, of which it labels spans.
    Spans,
    Images,
}

impl Reads {
    fn of(task: &str) -> Option<Reads> {
        match task {
            "text-classification" => Some(Reads::Texts),
            "token-classification" => Some(Reads::Spans),
            "image-classification" => Some(Reads::Images),
            _ => None,
        }
    }

    /// True for classifiers of texts.
    pub(crate) fn is_text(self) -> bool {
        self != Reads::Images
    }
}

/// A configured classifier.
#[derive(Debug)]
pub(crate) struct Classifier<'s> {
    pub(crate) card: Card<'s>,
    pub(crate) reads: Reads,
    pub(crate) labels: Vec<&'s str>,
    categories: Vec<Category>,
}

/// Judgement of a category by a classifier.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judge {
    /// Index of the classifier.
    pub(crate) index: usize,
    pub(crate) rule: Rule,
    /// Threshold of its card.
    pub(crate) threshold: Option<f32>,
}

/// A category of the verdict.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    /// Minimum score at which it is flagged; `None` if it is only reported.
    pub(crate) threshold: Option<f32>,
    /// Threshold of the first card that has one: scores of all cards are on its scale.
    pub(crate) scale: Option<f32>,
    /// The first classifier of texts that judges it.
    pub(crate) text: Option<Judge>,
    /// The other classifiers of texts whose cards judge it. They may disagree with the first.
    pub(crate) others: Vec<Judge>,
    /// True if the scores of the others count as much as that of the first.
    pub(crate) is_mean: bool,
    /// Classifiers of images that judge it: the highest score counts.
    pub(crate) images: Vec<Judge>,
}

impl Assignment {
    /// The classifiers of texts whose scores count.
    pub(crate) fn of_texts(&self) -> impl Iterator<Item = &Judge> {
        let others = self.others.iter().filter(|_| self.is_mean);
        self.text.iter().chain(others)
    }
}

/// Reads the configured classifiers, in the order of their names, without the language model.
///
/// # Errors
///
/// `internal` when a card is malformed.
pub(crate) fn read(settings: &Settings) -> Result<Vec<Classifier<'_>>, Fault> {
    let mut classifiers = Vec::new();
    for card in settings.cards().filter(|card| card.model() != LANGUAGE) {
        let Some(reads) = Reads::of(card.require("task")?) else { continue };
        let (labels, categories) = (card.labels()?, categories::of_card(&card)?);
        classifiers.push(Classifier { card, reads, labels, categories });
    }
    Ok(classifiers)
}

/// Assigns the categories to classifiers: OpenAI's first, then those of the cards, then `advised`,
/// those that a language model judges.
///
/// # Errors
///
/// `internal` for an invalid setting.
pub(crate) fn assign(
    settings: &Settings,
    classifiers: &[Classifier<'_>],
    advised: &[Advised],
) -> Result<Vec<Assignment>, Fault> {
    let mut names: Vec<&str> = categories::OPENAI.to_vec();
    let of_cards = classifiers.iter().flat_map(|classifier| &classifier.categories);
    let further =
        of_cards.map(|category| category.name.as_str()).chain(advised.iter().map(|own| own.name.as_str()));
    let of_settings = settings.keys().filter_map(|key| key.strip_prefix("category."));
    for name in further.chain(of_settings) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| assignment(settings, classifiers, advised, name)).collect()
}

fn assignment(
    settings: &Settings,
    classifiers: &[Classifier<'_>],
    advised: &[Advised],
    name: &str,
) -> Result<Assignment, Fault> {
    let choice = categories::choice(settings, name)?.unwrap_or_default();
    let unfit = |problem: String| Fault::Internal(format!("setting `category.{name}`: {problem}"));
    if let Some(model) = &choice.model {
        if !classifiers.iter().any(|classifier| classifier.card.model() == model) {
            let known: Vec<_> = classifiers.iter().map(|classifier| classifier.card.model()).collect();
            return Err(unfit(format!("no classifier `{model}`, expected one of `{}`", known.join("`, `"))));
        }
    }
    let chosen = |classifier: &Classifier<'_>| choice.model.as_deref() == Some(classifier.card.model());
    let mapped = |classifier: &Classifier<'_>| {
        classifier.categories.iter().find(|category| category.name == name).cloned()
    };
    let judges = |is_text: bool| -> Result<Vec<Judge>, Fault> {
        let of_kind =
            || classifiers.iter().enumerate().filter(|(_, classifier)| classifier.reads.is_text() == is_text);
        // A chosen model judges the parts of its kind; the others keep their default.
        let chosen_one: Vec<_> = of_kind().filter(|(_, classifier)| chosen(classifier)).collect();
        let candidates = match &choice.rule {
            _ if !chosen_one.is_empty() => chosen_one,
            Some(rule) if choice.model.is_none() => {
                let fits = |classifier: &Classifier<'_>| {
                    categories::check_labels(name, rule, &classifier.card).is_ok()
                };
                of_kind().filter(|(_, classifier)| fits(classifier)).collect()
            }
            _ => of_kind().filter(|(_, classifier)| mapped(classifier).is_some()).collect(),
        };
        let judge = |(index, classifier): (usize, &Classifier<'_>)| {
            let own = mapped(classifier);
            let threshold = own.as_ref().and_then(|category| category.threshold);
            let is_chosen = choice.model.is_none() || chosen(classifier);
            let rule = match choice.rule.clone().filter(|_| is_chosen) {
                Some(rule) => {
                    categories::check_labels(name, &rule, &classifier.card)?;
                    rule
                }
                None => match own {
                    Some(category) => category.rule,
                    None => {
                        let model = classifier.card.model();
                        return Err(unfit(format!(
                            "the card of model `{model}` does not judge it; add a rule"
                        )));
                    }
                },
            };
            Ok(Judge { index, rule, threshold })
        };
        candidates.into_iter().map(judge).collect()
    };
    let is_mean = is_mean(settings)? && choice == Choice::default();
    let (texts, images) = (judges(true)?, judges(false)?);
    let text = texts.into_iter().next();
    if choice.rule.is_some() && text.is_none() && images.is_empty() {
        return Err(unfit("no classifier has the labels of its rule".to_owned()));
    }
    let scale = text.iter().chain(&images).find_map(|judge| judge.threshold);
    let advised = advised.iter().find(|own| own.name == name);
    let default = scale.or_else(|| advised?.threshold);
    let default = default.or(categories::OPENAI.contains(&name).then_some(categories::THRESHOLD));
    let key = ["threshold.", name].concat();
    let threshold = match settings.text(&key) {
        Some(text) => {
            let threshold = settings.get(&key, categories::THRESHOLD)?;
            if !(0.0..=1.0).contains(&threshold) {
                let expected = "expected a number from 0 to 1";
                return Err(Fault::Internal(format!("setting `{key}`: {expected}, found `{text}`")));
            }
            Some(threshold)
        }
        None => default,
    };
    let chosen_one = text.as_ref().map(|judge| judge.index);
    let others = classifiers.iter().enumerate().filter(|(index, _)| Some(*index) != chosen_one);
    let others = others.filter(|(_, classifier)| classifier.reads.is_text() && text.is_some());
    let others = others.filter_map(|(index, classifier)| {
        let Category { rule, threshold, .. } = mapped(classifier)?;
        threshold.map(|_| Judge { index, rule, threshold })
    });
    let others = others.collect();
    Ok(Assignment { name: name.to_owned(), threshold, scale, text, others, is_mean, images })
}

/// True if all classifiers of texts count, false if the first one of a category decides.
fn is_mean(settings: &Settings) -> Result<bool, Fault> {
    match settings.text(COMBINE) {
        None | Some("first") => Ok(false),
        Some("mean") => Ok(true),
        Some(found) => {
            Err(Fault::Internal(format!("setting `{COMBINE}`: expected `first` or `mean`, found `{found}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"harassment":{"rule":"max","labels":["toxic","insult"],"threshold":0.7},"insult":{"rule":"max","labels":["insult"]}}"#;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let base = [
            ("models.text.task", "text-classification"),
            ("models.text.labels", "toxic\ninsult"),
            ("models.text.categories", TEXT),
            ("models.text2.task", "text-classification"),
            ("models.text2.labels", "hate"),
            ("models.text2.categories", r#"{"harassment":{"rule":"max","labels":["hate"],"threshold":0.4}}"#),
            ("models.image.task", "image-classification"),
            ("models.image.labels", "Porn\nNeutral"),
            ("models.image.categories", r#"{"sexual":{"rule":"not","labels":["Neutral"]}}"#),
            ("models.language.task", "text-generation"),
            ("models.language.labels", ""),
        ];
        let all = base.iter().chain(pairs).map(|&(key, value)| (key.to_owned(), value.to_owned()));
        Settings::from_pairs(all.collect())
    }

    fn find(pairs: &[(&str, &str)], advised: &[Advised], name: &str) -> Result<Assignment, Fault> {
        let settings = settings(pairs);
        let classifiers = read(&settings).unwrap();
        let names: Vec<_> = classifiers.iter().map(|classifier| classifier.card.model()).collect();
        assert_eq!(names, ["image", "text", "text2"]);
        let all = assign(&settings, &classifiers, advised)?;
        Ok(all.into_iter().find(|assignment| assignment.name == name).unwrap())
    }

    fn max(index: usize, labels: &[&str], threshold: Option<f32>) -> Option<Judge> {
        let rule = Rule::Max(labels.iter().map(|&label| label.to_owned()).collect());
        Some(Judge { index, rule, threshold })
    }

    #[test]
    fn first_model_that_judges_a_category_is_used() {
        let harassment = find(&[], &[], "harassment").unwrap();
        assert_eq!(harassment.text, max(1, &["toxic", "insult"], Some(0.7)));
        assert_eq!((harassment.threshold, harassment.images), (Some(0.7), Vec::new()));
        let sexual = find(&[], &[], "sexual").unwrap();
        let rule = Rule::Not("Neutral".to_owned());
        assert_eq!(sexual.images, [Judge { index: 0, rule, threshold: None }]);
        assert_eq!((sexual.threshold, sexual.scale), (Some(0.5), None));
        assert_eq!(find(&[], &[], "violence").unwrap().text, None);
    }

    #[test]
    fn all_text_models_count_if_combined() {
        let of_texts = |pairs: &[(&str, &str)]| {
            let found = find(pairs, &[], "harassment").unwrap();
            found.of_texts().map(|judge| judge.index).collect::<Vec<_>>()
        };
        let mean = ("combine", "mean");
        assert_eq!(of_texts(&[("combine", "first")]), [1]);
        assert_eq!(of_texts(&[mean]), [1, 2]);
        for choice in ["text2", "max(toxic)"] {
            assert_eq!(of_texts(&[mean, ("category.harassment", choice)]).len(), 1, "{choice}");
        }
    }

    #[test]
    fn all_image_models_of_a_category_judge_it() {
        let second = [
            ("models.second.task", "image-classification"),
            ("models.second.labels", "NSFL\nNSFW"),
            ("models.second.categories", r#"{"sexual":{"rule":"max","labels":["NSFW"],"threshold":0.8}}"#),
        ];
        let images = |choice: Option<&str>| {
            let choice = choice.map(|choice| ("category.sexual", choice));
            let settings = settings(&second.into_iter().chain(choice).collect::<Vec<_>>());
            let classifiers = read(&settings).unwrap();
            let all = assign(&settings, &classifiers, &[]).unwrap();
            let sexual = all.into_iter().find(|assignment| assignment.name == "sexual").unwrap();
            let judges = sexual.images.iter().map(|judge| (judge.index, judge.threshold)).collect::<Vec<_>>();
            (judges, sexual.threshold, sexual.scale)
        };
        assert_eq!(images(None), (vec![(0, None), (1, Some(0.8))], Some(0.8), Some(0.8)));
        assert_eq!(images(Some("image")), (vec![(0, None)], Some(0.5), None));
        assert_eq!(images(Some("second")), (vec![(1, Some(0.8))], Some(0.8), Some(0.8)));
        assert_eq!(images(Some("max(Porn)")).0, [(0, None)]);
    }

    #[test]
    fn further_categories_are_only_reported() {
        assert_eq!(find(&[], &[], "insult").unwrap().threshold, None);
        let set = find(&[("threshold.insult", "0.9")], &[], "insult").unwrap();
        assert_eq!(set.threshold, Some(0.9));
        for threshold in [None, Some(0.3)] {
            let own = Advised { name: "spoilers".to_owned(), threshold };
            let found = find(&[], &[own], "spoilers").unwrap();
            assert_eq!((found.threshold, found.text), (threshold, None));
        }
    }

    #[test]
    fn operator_chooses_model_and_rule() {
        let key = "category.harassment";
        let text = |value: &str| find(&[(key, value)], &[], "harassment").map(|found| found.text);
        assert_eq!(text("text2").unwrap(), max(2, &["hate"], Some(0.4)));
        assert_eq!(text("max(toxic)").unwrap(), max(1, &["toxic"], Some(0.7)));
        assert_eq!(text("text2: max(hate)").unwrap(), max(2, &["hate"], Some(0.4)));
        let violence = find(&[("category.violence", "text2: max(hate)")], &[], "violence").unwrap();
        assert_eq!(violence.text, max(2, &["hate"], None));
        let spam = find(&[("category.spam", "max(insult)")], &[], "spam").unwrap();
        assert_eq!((spam.text, spam.threshold), (max(1, &["insult"], None), None));
    }

    #[test]
    fn invalid_choices_are_named() {
        for (key, value, expected) in [
            ("category.hate", "text9", "no classifier `text9`, expected one of `image`, `text`, `text2`"),
            ("category.hate", "text", "the card of model `text` does not judge it; add a rule"),
            ("category.hate", "text: max(rude)", "model `text` has no label `rude`"),
            ("category.hate", "max(rude)", "no classifier has the labels of its rule"),
            ("threshold.hate", "7", "setting `threshold.hate`: expected a number from 0 to 1, found `7`"),
            ("combine", "max", "setting `combine`: expected `first` or `mean`, found `max`"),
            ("threshold.hate", "high", "setting `threshold.hate`: expected a finite number"),
        ] {
            let Err(Fault::Internal(message)) = find(&[(key, value)], &[], "hate") else { panic!("{value}") };
            assert!(message.contains(expected), "{message}");
        }
    }
}
