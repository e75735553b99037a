//! The subset of Jinja2 that chat templates use, for untrusted templates.
//!
//! A template can use only the statements, operators, filters, tests, functions and methods of this
//! module, with the semantics of Jinja2 and Python. Every evaluation is charged for its steps and,
//! before anything is allocated, for its memory. Nesting is limited while a template is parsed,
//! while it runs, and in the values that it builds. Every template therefore ends in bounded time,
//! memory and stack.
//!
//! Not supported, because chat templates do not use them: other templates (`include`, `import`,
//! `extends`, `block`), recursive loops, `call` blocks, and automatic escaping.
//!
//! # Layout
//!
//! - `lexer`, `parser`, `syntax`: from text to a syntax tree
//! - `interpreter`: statements and expressions; `operators`
//! - `filters`, `tests`, `functions`, `methods`: everything that a template may call; `arguments`:
//!   the arguments of a call
//! - `value`, `text`: values, and their text forms
//! - `budget`, `error`: the steps and bytes of a rendering, and the errors of a template

mod arguments;
mod budget;
mod error;
mod filters;
mod functions;
mod interpreter;
mod lexer;
mod methods;
mod operators;
mod parser;
mod syntax;
mod tests;
mod text;
mod value;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod real;

pub(super) use budget::Bounds;
pub(super) use error::{Cause, Error};
pub(super) use value::Value;

use budget::Budget;
use interpreter::Interpreter;
use syntax::Block;

use crate::limits::MAX_TEMPLATE;

/// A parsed template.
pub(super) struct Program {
    body: Block,
}

impl Program {
    /// Parses `source`.
    ///
    /// # Errors
    ///
    /// If it is not a template, or is nested too deeply.
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        MAX_TEMPLATE
            .check("the source", source.len())
            .map_err(|message| Error { line: 1, cause: Cause::Failed(message) })?;
        Ok(Program { body: parser::parse(source)? })
    }

    /// Renders the template with `variables`. Of equal names, the first one counts. `now` is the
    /// time of `strftime_now`, in seconds after 1970 in UTC.
    ///
    /// # Errors
    ///
    /// If it fails, raises an exception, or exceeds a limit.
    pub(super) fn render(
        &self,
        variables: Vec<(&str, Value)>,
        now: i64,
        bounds: &Bounds,
    ) -> Result<String, Error> {
        let budget = Budget::new(bounds);
        Interpreter::new(&budget, variables, now, bounds.output).run(&self.body)
    }
}
