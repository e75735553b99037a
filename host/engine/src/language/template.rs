//! Chat templates: Jinja programs in model files that lay out a chat as the model was trained on
//! it.
//!
//! They run as Hugging Face's `apply_chat_template` runs them: blocks are trimmed,
//! `raise_exception` refuses a chat, and texts have Python's methods. What they may call, and what
//! they may take of time and memory, is bounded in `jinja`.

use super::jinja::{Bounds, Cause, Error, Program, Value};
use super::request::Message;

/// Bytes that one rendering may write.
const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// Bytes of a template's own words of refusal that are passed on.
const MAX_REFUSAL_BYTES: usize = 1 << 10;
/// The template's name in messages.
const NAME: &str = "tokenizer.chat_template";

/// A chat template.
pub(crate) struct Template {
    program: Program,
    source: String,
    bos: String,
    eos: String,
}

/// A chat template that is refused, or that refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It is not a template.
    #[error("key `{NAME}` is not a template, {0}; correct it, or take another file")]
    Syntax(String),
    /// It refuses the messages by its own words.
    #[error("the chat template refuses `messages`: {0}")]
    Refused(String),
    /// It wrote too much, or took too many steps or too much memory.
    #[error(
        "key `{NAME}` takes more than {steps} steps, {bytes} bytes of memory or {output} bytes of text for these `messages`, \
         {place}; take another file"
    )]
    Unbounded {
        /// The line, and what was running there.
        place: String,
        steps: u64,
        bytes: u64,
        output: usize,
    },
    /// It failed.
    #[error("key `{NAME}` fails on `messages`, {0}; the model may not take such turns")]
    Failed(String),
}

impl Template {
    /// Parse `source`, which may write the texts of the BOS and EOS tokens.
    ///
    /// # Errors
    ///
    /// When it is not a template.
    pub(crate) fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let program = Program::parse(source).map_err(|error| TemplateError::Syntax(described(&error)))?;
        let text = |token: Option<&str>| token.unwrap_or_default().to_owned();
        Ok(Template { program, source: source.to_owned(), bos: text(bos), eos: text(eos) })
    }

    /// The template's source.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Lay out `messages`, with the beginning of the assistant's turn where `generation_prompt`
    /// asks for it.
    ///
    /// # Errors
    ///
    /// When the template refuses the messages, fails, or passes a bound.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let message = |message: &Message| {
            let entry = |name: &str, text: &str| (Value::from(name), Value::from(text));
            Value::distinct(vec![entry("role", &message.role), entry("content", &message.content)])
        };
        let bounds = bounds(messages);
        let failure = |error| failure(error, &bounds);
        let messages = messages.iter().map(message).collect::<Result<_, _>>().and_then(Value::list);
        let messages = messages.map_err(|cause| failure(Error { line: 1, cause }))?;
        let variables = vec![
            ("messages", messages),
            ("add_generation_prompt", Value::Boolean(generation_prompt)),
            ("bos_token", Value::from(&*self.bos)),
            ("eos_token", Value::from(&*self.eos)),
        ];
        self.program.render(variables, &bounds).map_err(failure)
    }
}

/// What laying out `messages` may take. A turn of real templates takes about 100 steps, and three
/// times its text.
fn bounds(messages: &[Message]) -> Bounds {
    let text = messages.iter().map(|message| message.content.len() + message.role.len()).sum::<usize>();
    let text = text.min(MAX_OUTPUT_BYTES) as u64;
    let steps = 50_000 + 1_000 * messages.len() as u64 + text / 2;
    Bounds { steps, bytes: (8 << 20) + 12 * text, output: MAX_OUTPUT_BYTES }
}

fn failure(error: Error, bounds: &Bounds) -> TemplateError {
    match error.cause {
        Cause::Refused(mut message) => {
            message.truncate(message.floor_char_boundary(MAX_REFUSAL_BYTES));
            TemplateError::Refused(message)
        }
        Cause::Unbounded(_) => {
            let Bounds { steps, bytes, output } = *bounds;
            TemplateError::Unbounded { place: described(&error), steps, bytes, output }
        }
        Cause::Failed(_) => TemplateError::Failed(described(&error)),
    }
}

/// What is wrong, and at which line.
fn described(error: &Error) -> String {
    let line = error.line;
    match &error.cause {
        Cause::Failed(message) => format!("line {line}: {message}"),
        Cause::Unbounded(Some(place)) => format!("line {line}: {place}"),
        Cause::Unbounded(None) | Cause::Refused(_) => format!("line {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String, TemplateError> {
        let message =
            |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
        let messages: Vec<_> = messages.iter().map(message).collect();
        Template::new(source, Some("<s>"), None)?.render(&messages, true)
    }

    #[test]
    fn templates_run_as_jinja2_runs_them() {
        let cases = [
            ("{{ bos_token }}{{ eos_token }}|{{ messages[0]['content'] }}", "<s>|Hi & <b>"),
            (
                "{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\n",
                "user\n",
            ),
            ("{{ messages[0].content.split(' ')[-1].upper() | trim }}", "<B>"),
            ("{{ 'yes' if messages[0].content.startswith('Hi') and tools is not defined }}", "yes"),
            (
                "{% set ns = namespace(n=1) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% if i == 3 %}{% break %}{% endif %}{% endfor %}{{ ns.n }}",
                "7",
            ),
            (
                "{% if add_generation_prompt %}{{- 'x' -}} {% endif %}{{ {'a': 'é'} | tojson }}",
                "x{\"a\": \"é\"}",
            ),
            ("{% if not tools %}none{% endif %}{{ messages[7] }}", "none"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, &[("user", "Hi & <b>")]).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn templates_that_are_none_fail_loop_or_refuse_end_in_an_error() {
        let cases = [
            ("a\n{% for %}", "key `tokenizer.chat_template` is not a template, line 2: "),
            (
                "{{ raise_exception('roles must alternate') }}",
                "the chat template refuses `messages`: roles must alternate",
            ),
            (
                "\n{{ messages[0].content.fly() }}",
                "key `tokenizer.chat_template` fails on `messages`, line 2: ",
            ),
            ("{{ 1 // 0 }}", "key `tokenizer.chat_template` fails on `messages`, line 1: "),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                "key `tokenizer.chat_template` takes more than 51003 steps",
            ),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "key `tokenizer.chat_template` fails on `messages`, ",
            ),
            (
                "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
                "key `tokenizer.chat_template` takes more than 51003 steps, 8388680 bytes of memory or 4194304 bytes of text for these `messages`, line 1; ",
            ),
        ];
        for (source, expected) in cases {
            let message = render(source, &[("user", "Hi")]).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\nexpected {expected}");
        }
    }
}
