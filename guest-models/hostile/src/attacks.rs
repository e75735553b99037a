//! The table of attacks, and the guest that runs one of them.

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Gap, Kinds, Moderator, Part, Verdict};

use crate::{memory, models, script, time};

/// An attack. It may never return, fail as any guest may, or return the host's answer.
pub type Attack = fn(&Settings) -> Result<String, Fault>;

/// All attacks by name.
pub const ATTACKS: [(&str, Attack); 23] = [
    ("loop", time::spin),
    ("recurse", time::recurse),
    ("panic", time::give_up),
    ("log-flood", time::flood_log),
    ("drip", time::drip),
    ("remember", time::remember),
    ("allocate", memory::allocate),
    ("hoard-tensors", memory::hoard_tensors),
    ("hoard-handles", memory::hoard_handles),
    ("hoard-contexts", memory::hoard_contexts),
    ("long-name", memory::long_name),
    ("long-key", memory::long_key),
    ("long-line", memory::long_line),
    ("many-dimensions", memory::many_dimensions),
    ("foreign-model", models::foreign),
    ("load-bytes", models::load_bytes),
    ("bad-tensor", models::bad_tensor),
    ("overflow-dimensions", models::overflow_dimensions),
    ("zero-size", models::zero_size),
    ("wrong-input", models::wrong_input),
    ("twice-named", models::twice_named),
    ("not-a-number", models::not_a_number),
    ("nothing", |_| Ok("nothing was done".to_owned())),
];

/// Attack whose verdict itself is the attack: a list longer than any honest one.
const LONG_ANSWER: &str = "long-answer";

/// Attack from the input: the bytes of an image are calls.
const SCRIPT: &str = "script";

/// The guest.
pub(crate) struct Hostile;

impl Moderator for Hostile {
    fn moderate(input: Vec<Part>) -> Result<Verdict, Fault> {
        let settings = Settings::read()?;
        let name = settings.text("attack").unwrap_or("nothing");
        let gap = |reason| Gap { category: name.to_owned(), unjudged: Kinds::TEXT, reason };
        let gaps = if name == LONG_ANSWER {
            (0..1_000_000).map(|line| gap(line.to_string())).collect()
        } else if name == SCRIPT {
            let [Part::Image(script)] = &input[..] else {
                return Err(Fault::InvalidInput("expected a script: the bytes of one image".to_owned()));
            };
            vec![gap(script::run(script)?)]
        } else if let Some((_, attack)) = ATTACKS.iter().find(|(candidate, _)| *candidate == name) {
            vec![gap(attack(&settings)?)]
        } else {
            let names: Vec<_> = ATTACKS.iter().map(|(name, _)| *name).chain([LONG_ANSWER, SCRIPT]).collect();
            let message = format!("setting `attack`: expected one of {}, found `{name}`", names.join(", "));
            return Err(Fault::Internal(message));
        };
        Ok(Verdict { flagged: false, scores: Vec::new(), gaps })
    }
}
