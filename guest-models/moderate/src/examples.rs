//! The setting `policy.examples`.

use guest_sdk::Fault;
use guest_sdk::json::{Reader, Unexpected};

/// Parses the setting `policy.examples`: posts and their answers.
pub(crate) fn examples(key: &str, json: &str, choices: &[String; 2]) -> Result<Vec<(String, String)>, Fault> {
    let mut examples = Vec::new();
    let mut reader = Reader::new(json);
    let read = reader.array(&mut |reader| {
        let (mut text, mut label) = (None, None);
        reader.object(&mut |reader, name| {
            match name {
                "text" => text = Some(reader.string()?),
                "label" => label = Some(reader.string()?),
                _ => return Err(reader.expected("one of the members `text` and `label`")),
            }
            Ok(())
        })?;
        let text = text.ok_or_else(|| reader.expected("a member `text` before the end of the object"))?;
        let label = label.ok_or_else(|| reader.expected("a member `label` before the end of the object"))?;
        if !choices.contains(&label) {
            return Err(
                reader.expected("a `label` that is one of `policy.choices` before the end of the object")
            );
        }
        examples.push((text, label));
        Ok(())
    });
    let read = read.and_then(|()| reader.end());
    read.map_err(|error: Unexpected| {
        let shape = "expected a JSON array such as [{\"text\": \"…\", \"label\": \"allowed\"}]";
        Fault::Internal(format!("setting `{key}`: {error}; {shape}"))
    })?;
    Ok(examples)
}
