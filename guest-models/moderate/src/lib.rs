//! A guest that judges text and images against OpenAI's moderation categories.
//!
//! It uses any number of classifiers, whose cards map their labels to categories, and one language
//! model. Categories that no configured model judges become gaps:
//!
//! - models for text classification and token classification judge texts; the latter also report
//!   the spans that they label; of several that judge a category, the first counts, or their mean
//! - models for image classification judge images; of several that judge a category, the highest
//!   score counts
//! - a model for text detection and one for text recognition read the texts in images, which are
//!   judged like other texts
//! - `language`: any language model. It judges texts under the operator's policy, or a guard by the
//!   questions of its card: those about which the classifiers are uncertain, or all of them without
//!   a classifier.
//!
//! Settings: `threshold.CATEGORY` (minimum score of a flagged category), `category.CATEGORY` (model
//! and rule of a category), `combine` (several models of a category), `cascade.*` and `policy.*`
//! (use and prompt of the language model), `image.max_count`, `image.max_views`, `max_pixels`,
//! `ocr.*` (texts in images). The defaults are constants beside their use.
//!
//! # Layout
//!
//! - `categories`: categories and the rules that compute them from labels; `classifiers`: the
//!   configured classifiers, and which of them judges each category
//! - `known`: rejects settings that the guest does not read
//! - `part`: parts of the input; `judge`: runs the classifiers
//! - `cascade`: decides when to ask the language model; `band`, `triggers`: by scores near the
//!   threshold and by other signs, of which `reading` has some; `band` combines its answer
//! - `policies`: the settings of one policy or several; `policy`, `builtin`, `examples`: the
//!   prompt; `opinion`: the answer; `guard`: a language model that has questions of its own
//! - `ocr`: reads texts in images; `odds`: scores on the scale of log-odds
//! - `explanation`: the words behind scores, for callers who ask; `occlusion`: finds them;
//!   `variants`: scores a text without them; `words`: words and sentences of a text; `limits`:
//!   bounds of explanations
//! - `verdict`: the verdict from the findings; `scores`: those of the worst part; `moderator`: the
//!   guest that uses all of these

mod band;
mod builtin;
mod cascade;
mod categories;
mod classifiers;
mod examples;
mod explanation;
mod guard;
mod judge;
mod known;
mod limits;
mod moderator;
mod occlusion;
mod ocr;
mod odds;
mod opinion;
mod part;
mod policies;
mod policy;
mod reading;
mod scores;
mod triggers;
mod variants;
mod verdict;
mod words;

use moderator::Moderate;

guest_sdk::export_moderator!(Moderate);
