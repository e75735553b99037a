//! What a card must be beyond well-formed: the parts of it agree.

use std::collections::BTreeSet;

use super::{Axis, Card, Format, ImageSpec, Role, Task, self_test};

/// Check a card whose labels are in the file called `labels`.
///
/// # Errors
///
/// A message that names what disagrees.
pub(super) fn card(card: &Card, labels: Option<&str>) -> Result<(), String> {
    once("files", card.files.iter().map(|file| file.path.as_str()))?;
    match card.format {
        Format::Onnx => {
            if card.task == Task::TextGeneration {
                return Err("`task` is `text-generation`, expected `format` to be `gguf`".to_owned());
            }
            once("inputs", card.inputs.iter().map(|input| input.name.as_str()))?;
            once("outputs", card.outputs.iter().map(|output| output.name.as_str()))?;
        }
        Format::Gguf => language(card, labels)?,
    }
    card.download.check()?;
    self_test::check(card)?;
    let models = card.files.iter().filter(|file| file.role == Role::Model).count();
    if models != 1 {
        return Err(format!("`files` has {models} entries with role `model`, expected exactly one"));
    }
    if let Some(labels) = labels {
        listed(card, "labels", labels, Role::Labels)?;
    }
    for input in &card.inputs {
        if input.image.is_some() && input.text.is_some() {
            return Err(format!("input `{}` has both `image` and `text`, expected at most one", input.name));
        }
        if let Some(spec) = &input.image {
            image(spec).map_err(|message| format!("input `{}`: {message}", input.name))?;
        }
        if let Some(text) = &input.text {
            listed(card, "vocabulary", &text.vocabulary, Role::Vocabulary)?;
            one_of("pad", &text.pad, &["left", "right"])
                .map_err(|message| format!("input `{}`: {message}", input.name))?;
        }
    }
    Ok(())
}

/// A language model takes and gives the tensors of the convention, whatever its file.
fn language(card: &Card, labels: Option<&str>) -> Result<(), String> {
    if card.task != Task::TextGeneration {
        return Err(format!("`task` is `{}`, expected `text-generation` for `format` = `gguf`", card.task));
    }
    let keys = [
        ("inputs", card.inputs.is_empty()),
        ("outputs", card.outputs.is_empty()),
        ("labels", labels.is_none()),
    ];
    match keys.into_iter().find(|(_, absent)| !absent) {
        Some((key, _)) => Err(format!(
            "`{key}` has no place in a card of `format` = `gguf`: its tensors are the convention's; remove it"
        )),
        None => Ok(()),
    }
}

/// Check that there are as many labels as scores.
///
/// # Errors
///
/// A message that gives both numbers.
pub(crate) fn labels(card: &Card) -> Result<(), String> {
    let scores = card.outputs.first().and_then(|output| Some((&output.name, output.shape.last()?)));
    if let Some((name, Axis::Fixed(scores))) = scores
        && *scores != card.labels.len()
    {
        let found = card.labels.len();
        return Err(format!("{found} labels, one a line; output `{name}` has {scores} scores"));
    }
    Ok(())
}

/// Each name once, and at least one.
fn once<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("`{key}` lists `{name}` twice"));
        }
    }
    if seen.is_empty() {
        return Err(format!("`{key}` is empty, expected at least one"));
    }
    Ok(())
}

fn listed(card: &Card, key: &str, name: &str, role: Role) -> Result<(), String> {
    match card.files.iter().find(|file| file.path == name) {
        Some(file) if file.role == role => Ok(()),
        Some(file) => {
            Err(format!("`{key}` is `{name}`, which `files` lists as `{}`, expected `{role}`", file.role))
        }
        None => Err(format!("`{key}` is `{name}`, which `files` does not list; add it with role `{role}`")),
    }
}

fn image(spec: &ImageSpec) -> Result<(), String> {
    one_of("color", &spec.color, &["RGB", "BGR"])?;
    one_of("filter", &spec.filter, &["nearest", "bilinear", "bicubic", "lanczos3"])?;
    if !(spec.crop > 0.0 && spec.crop <= 1.0) {
        return Err(format!("`crop` is {}, expected above 0 and at most 1", spec.crop));
    }
    if !spec.mean.is_finite() {
        return Err(format!("`mean` is {}, expected a finite number", spec.mean));
    }
    if !spec.std.is_finite() || spec.std == 0.0 {
        return Err(format!("`std` is {}, expected a finite number other than 0", spec.std));
    }
    Ok(())
}

fn one_of(key: &str, found: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&found) {
        return Ok(());
    }
    Err(format!("`{key}` is `{found}`, expected one of {}", known.join(", ")))
}
