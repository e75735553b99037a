//! Edits of a configuration's text for commands. The rest of the text keeps its formatting and
//! comments.

use toml_edit::{DocumentMut, Item, TableLike, Value};

/// The change that `infer rollback` reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverted {
    /// A trial of this source.
    Trial(String),
    /// A promotion of this source.
    Promotion(String),
}

/// Replaces the source of `model` with that of its next version and stores the replaced one as
/// `previous`. Returns the text, and the sources before and after.
///
/// # Errors
///
/// If there is no such model, or it has no next version.
pub fn promote(text: &str, model: &str) -> Result<(String, [String; 2]), String> {
    let mut document = parse(text)?;
    let table = section(&mut document, model)?;
    let next = table.get("next").and_then(|next| next.as_table_like()?.get("source")?.as_str());
    let next = next.map(str::to_owned).ok_or_else(|| {
        format!(
            "model `{model}` has no next version to promote; expected `next = {{ source = …, percent = … }}`"
        )
    })?;
    table.remove("next");
    let before = set(table, "source", &next).unwrap_or_default();
    set(table, "previous", &before);
    Ok((document.to_string(), [before, next]))
}

/// Removes the next version of `model`; without one, restores the source before the last promotion.
/// Returns the text, the reverted change, and the source that remains.
///
/// # Errors
///
/// If there is no such model, or it has neither a next nor a previous version.
pub fn rollback(text: &str, model: &str) -> Result<(String, Reverted, String), String> {
    let mut document = parse(text)?;
    let table = section(&mut document, model)?;
    let string = |item: &Item| item.as_str().map(str::to_owned);
    let source = table.get("source").and_then(string).unwrap_or_default();
    if let Some(next) = table.remove("next") {
        let trial = next.as_table_like().and_then(|next| string(next.get("source")?)).unwrap_or_default();
        return Ok((document.to_string(), Reverted::Trial(trial), source));
    }
    let previous = table.remove("previous").and_then(|previous| string(&previous)).ok_or_else(|| {
        format!("model `{model}` has neither a next version nor a `previous` one; nothing to roll back")
    })?;
    set(table, "source", &previous);
    Ok((document.to_string(), Reverted::Promotion(source), previous))
}

fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error: toml_edit::TomlError| error.message().replace('\n', " "))
}

fn section<'d>(document: &'d mut DocumentMut, model: &str) -> Result<&'d mut dyn TableLike, String> {
    let models = document.get_mut("models").and_then(Item::as_table_like_mut);
    let section = models.and_then(|models| models.get_mut(model)?.as_table_like_mut());
    section.ok_or_else(|| format!("no model `{model}`: the configuration has no section [models.{model}]"))
}

/// Sets `key` to a string, keeping the comment beside the value. Returns the replaced value.
fn set(table: &mut dyn TableLike, key: &str, text: &str) -> Option<String> {
    let mut value = Value::from(text);
    let before = table.get(key).and_then(Item::as_value).map(|before| {
        *value.decor_mut() = before.decor().clone();
        before.as_str().unwrap_or_default().to_owned()
    });
    table.insert(key, Item::Value(value));
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a box\n[models.text]\nsource = \"one\" # the first\nsessions = 2\n\
                        next = { source = \"two\", percent = 5 }\n\n[models.other]\nsource = \"x\"\n";

    #[test]
    fn promotion_keeps_comments_and_can_be_reverted() {
        let (promoted, sources) = promote(TEXT, "text").unwrap();
        assert_eq!(sources, ["one", "two"]);
        assert_eq!(
            promoted,
            "# a box\n[models.text]\nsource = \"two\" # the first\nsessions = 2\nprevious = \"one\"\n\n[models.other]\nsource = \"x\"\n"
        );
        let (back, reverted, source) = rollback(&promoted, "text").unwrap();
        assert_eq!((reverted, source.as_str()), (Reverted::Promotion("two".to_owned()), "one"));
        assert_eq!(back, TEXT.replace("next = { source = \"two\", percent = 5 }\n", ""));
        assert!(rollback(&back, "text").unwrap_err().contains("nothing to roll back"));
        assert!(promote(&back, "text").unwrap_err().contains("no next version"));
        assert!(promote(TEXT, "third").unwrap_err().contains("[models.third]"));
    }

    #[test]
    fn trial_is_reverted_before_promotion() {
        let text = "[models.text]\nsource = \"two\"\nprevious = \"one\"\n[models.text.next]\nsource = \"three\"\nshadow = true\n";
        let (back, reverted, source) = rollback(text, "text").unwrap();
        assert_eq!((reverted, source.as_str()), (Reverted::Trial("three".to_owned()), "two"));
        assert_eq!(back, "[models.text]\nsource = \"two\"\nprevious = \"one\"\n");
    }
}
