//! Chat templates: Jinja programs in model files that lay out a chat as the model was trained on it.
//!
//! They run as Hugging Face's `apply_chat_template` runs them: blocks are trimmed, `raise_exception` refuses a chat, and
//! texts have Python's methods. Steps and output are bounded, so a template that loops ends in an error.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use super::tokenizer::Message;

/// Instructions that one rendering may take; a turn of real templates takes about 50.
const FUEL: u64 = 1_000_000;
/// Bytes that one rendering may write.
const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// The template's name in messages.
const NAME: &str = "tokenizer.chat_template";

/// A chat template.
pub(crate) struct Template {
    environment: Environment<'static>,
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
    /// It wrote too much, or took too many steps.
    #[error("key `{NAME}` takes more than {FUEL} steps or {MAX_OUTPUT_BYTES} bytes; take another file")]
    Unbounded,
    /// It failed.
    #[error("key `{NAME}` fails on `messages`, {0}; the model may not take such turns")]
    Failed(String),
}

impl Template {
    /// Compile `source`, which may write the texts of the BOS and EOS tokens.
    ///
    /// # Errors
    ///
    /// When it is not a template.
    pub(crate) fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(told(&error)))?);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "refused").with_source(Refusal(message)))
        });
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Syntax(told(&error)))?;
        let text = |token: Option<&str>| token.unwrap_or_default().to_owned();
        Ok(Template { environment, source: source.to_owned(), bos: text(bos), eos: text(eos) })
    }

    /// The template's source.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Lay out `messages`, with the beginning of the assistant's turn where `generation_prompt` asks for it.
    ///
    /// # Errors
    ///
    /// When the template refuses the messages, fails, or passes a bound.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => &message.role, content => &message.content })
            .collect();
        let chat = context! {
            messages => messages,
            add_generation_prompt => generation_prompt,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let mut output = Bounded(Vec::new());
        template.render_captured_to(chat, &mut output).map_err(|error| failure(&error))?;
        String::from_utf8(output.0).map_err(|error| TemplateError::Failed(error.to_string()))
    }
}

/// Why a template refused a chat, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// Output up to a bound.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failure(error: &minijinja::Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = inner.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TemplateError::Unbounded,
        _ => TemplateError::Failed(told(error)),
    }
}

/// What is wrong, and at which line.
fn told(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| what.clone(), |line| format!("line {line}: {what}"))
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
                "key `tokenizer.chat_template` takes more than 1000000 steps",
            ),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "key `tokenizer.chat_template` fails on `messages`, ",
            ),
            (
                "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
                "key `tokenizer.chat_template` takes more than 1000000 steps or 4194304 bytes",
            ),
        ];
        for (source, expected) in cases {
            let message = render(source, &[("user", "Hi")]).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}\nexpected {expected}");
        }
    }
}
