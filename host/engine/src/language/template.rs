//! Chat templates: Jinja programs in model files that format a chat as in the model's training.
//!
//! They run like `apply_chat_template` of Hugging Face: blocks are trimmed, `raise_exception`
//! rejects a chat, and strings have Python's methods. `jinja` limits what they may call, and their
//! time and memory.

mod arguments;

pub use self::arguments::TemplateArguments;
use super::jinja::{Bounds, Cause, Error, Program, Value};
use super::request::Message;
use crate::limits::{MAX_RENDERED_BYTES, MAX_TEMPLATE_ERROR_BYTES};

/// Name of the template in messages.
const NAME: &str = "tokenizer.chat_template";

/// A chat template.
pub(crate) struct Template {
    program: Program,
    source: String,
    bos: String,
    eos: String,
    content: Content,
}

/// Form in which a template reads the content of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A text.
    Text,
    /// A list of parts, each with a type, such as `{"type": "text", "text": …}`.
    Parts,
}

/// The input of a rendering.
pub(crate) struct Chat<'a> {
    pub(crate) messages: &'a [Message],
    /// Ends with the beginning of the assistant's turn.
    pub(crate) generation_prompt: bool,
    /// Further variables.
    pub(crate) variables: Vec<(&'a str, Value)>,
    /// Length of the texts in these variables, in bytes.
    pub(crate) variable_bytes: usize,
    /// The time of `strftime_now`, in seconds after 1970 in UTC.
    pub(crate) now: i64,
}

/// A chat template that is rejected, or that rejects a chat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The source is not a valid template.
    #[error("key `{NAME}` is not a valid template, {0}; correct it, or use another file")]
    Syntax(String),
    /// The template raised an exception.
    #[error("the chat template rejects `messages`: {0}")]
    Refused(String),
    /// The template exceeded its budget.
    #[error(
        "key `{NAME}` exceeds {steps} steps, {bytes} bytes of memory or {output} bytes of text for these \
         `messages`, {place}; use another file"
    )]
    Unbounded {
        /// The line, and the operation that exceeded it.
        place: String,
        steps: u64,
        bytes: u64,
        output: usize,
    },
    /// Variables of the request are nested too deeply.
    #[error("`chat_template_kwargs`: {0}")]
    Arguments(String),
    /// The template failed.
    #[error("key `{NAME}` fails on `messages`, {0}; the model may not support such turns")]
    Failed(String),
}

impl TemplateError {
    /// The error of variables that are no values.
    pub(crate) fn arguments(cause: Cause) -> Self {
        match cause {
            Cause::Failed(message) | Cause::Refused(message) => TemplateError::Arguments(message),
            Cause::Unbounded(_) => TemplateError::Arguments("too large".to_owned()),
        }
    }
}

impl Template {
    /// Parses `source`, which may write the BOS and EOS tokens.
    ///
    /// # Errors
    ///
    /// If it is not a valid template.
    pub(crate) fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let program = Program::parse(source).map_err(|error| TemplateError::Syntax(described(&error)))?;
        let text = |token: Option<&str>| token.unwrap_or_default().to_owned();
        let (bos, eos) = (text(bos), text(eos));
        let mut template = Template { program, source: source.to_owned(), bos, eos, content: Content::Text };
        if !template.writes_content() {
            template.content = Content::Parts;
            if !template.writes_content() {
                template.content = Content::Text;
            }
        }
        Ok(template)
    }

    /// True if it writes the content of a turn.
    fn writes_content(&self) -> bool {
        const CONTENT: &str = "\u{e000}content\u{e000}";
        let message = Message { role: "user".to_owned(), content: CONTENT.to_owned() };
        let variables = Vec::new();
        let chat =
            Chat { messages: &[message], generation_prompt: true, variables, variable_bytes: 0, now: 0 };
        self.render(chat).is_ok_and(|text| text.contains(CONTENT))
    }

    /// Source of the template.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Formats a chat.
    ///
    /// # Errors
    ///
    /// If the template rejects the messages, fails, or exceeds its budget.
    pub(crate) fn render(&self, chat: Chat<'_>) -> Result<String, TemplateError> {
        let map = |entries: Vec<(&str, Value)>| {
            Value::distinct(entries.into_iter().map(|(name, value)| (Value::from(name), value)).collect())
        };
        let message = |message: &Message| {
            let text = Value::from(&*message.content);
            let content = match self.content {
                Content::Text => text,
                Content::Parts => {
                    Value::list(vec![map(vec![("type", Value::from("text")), ("text", text)])?])?
                }
            };
            map(vec![("role", Value::from(&*message.role)), ("content", content)])
        };
        let bounds = bounds(chat.messages, chat.variable_bytes);
        let failure = |error| failure(error, &bounds);
        let messages = chat.messages.iter().map(message).collect::<Result<_, _>>().and_then(Value::list);
        let messages = messages.map_err(|cause| failure(Error { line: 1, cause }))?;
        let mut variables = chat.variables;
        variables.extend([
            ("messages", messages),
            ("add_generation_prompt", Value::Boolean(chat.generation_prompt)),
            ("bos_token", Value::from(&*self.bos)),
            ("eos_token", Value::from(&*self.eos)),
        ]);
        self.program.render(variables, chat.now, &bounds).map_err(failure)
    }
}

/// Budget for `messages`. Real templates take about 100 steps for a turn, and three times the bytes
/// of its text.
fn bounds(messages: &[Message], variable_bytes: usize) -> Bounds {
    let text = messages.iter().map(|message| message.content.len() + message.role.len()).sum::<usize>();
    let text = (text + variable_bytes).min(MAX_RENDERED_BYTES) as u64;
    let steps = 50_000 + 1_000 * messages.len() as u64 + text / 2;
    Bounds { steps, bytes: (8 << 20) + 12 * text, output: MAX_RENDERED_BYTES }
}

fn failure(error: Error, bounds: &Bounds) -> TemplateError {
    match error.cause {
        Cause::Refused(mut message) => {
            message.truncate(message.floor_char_boundary(MAX_TEMPLATE_ERROR_BYTES));
            TemplateError::Refused(message)
        }
        Cause::Unbounded(_) => {
            let Bounds { steps, bytes, output } = *bounds;
            TemplateError::Unbounded { place: described(&error), steps, bytes, output }
        }
        Cause::Failed(_) => TemplateError::Failed(described(&error)),
    }
}

/// A description of the error, with its line.
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
        let (variables, variable_bytes) = (Vec::new(), 0);
        let chat =
            Chat { messages: &messages, generation_prompt: true, variables, variable_bytes, now: 86_400 };
        Template::new(source, Some("<s>"), None)?.render(chat)
    }

    #[test]
    fn templates_render_as_in_jinja2() {
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
            ("{{ strftime_now('%d %b %Y') }}", "02 Jan 1970"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, &[("user", "Hi & <b>")]).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn content_has_the_form_that_the_template_reads() {
        let parts = "{% for part in messages[0].content | selectattr('type', 'equalto', 'text') %}<{{ part.text }}>{% endfor %}";
        let either = "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{{ messages[0].content[0]['text'] }} as a part{% endif %}";
        let fails = "{{ messages[0]['content'][0]['text'] + '!' }}";
        for (source, expected) in [(parts, "<Hi>"), (either, "Hi"), (fails, "Hi!"), ("none", "none")] {
            assert_eq!(render(source, &[("user", "Hi")]).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn invalid_and_endless_templates_are_errors() {
        let cases = [
            ("a\n{% for %}", "key `tokenizer.chat_template` is not a valid template, line 2: "),
            (
                "{{ raise_exception('roles must alternate') }}",
                "the chat template rejects `messages`: roles must alternate",
            ),
            (
                "\n{{ messages[0].content.fly() }}",
                "key `tokenizer.chat_template` fails on `messages`, line 2: ",
            ),
            ("{{ 1 // 0 }}", "key `tokenizer.chat_template` fails on `messages`, line 1: "),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                "key `tokenizer.chat_template` exceeds 51003 steps",
            ),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "key `tokenizer.chat_template` fails on `messages`, ",
            ),
            (
                "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
                "key `tokenizer.chat_template` exceeds 51003 steps, 8388680 bytes of memory or 4194304 \
                 bytes of text for these `messages`, line 1; ",
            ),
        ];
        for (source, expected) in cases {
            let message = render(source, &[("user", "Hi")]).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\nexpected {expected}");
        }
    }
}
