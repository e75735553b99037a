//! The part of Jinja2 that chat templates are written in, for templates that nobody has looked at.
//!
//! What a template can do is what stands here: its statements, operators, filters, tests, functions
//! and methods, as Jinja2 and Python have them. Whatever is evaluated pays for its steps and,
//! before it is allocated, for its memory; depth is bounded where a template is parsed, where it
//! runs, and in the values that it makes. So each template ends, in bounded time, memory and stack,
//! whatever it says.
//!
//! Left out, as no chat template has them: other templates (`include`, `import`, `extends`,
//! `block`), recursive loops, `call` blocks, automatic escaping.
//!
//! # Layout
//!
//! - `lexer`, `parser`, `syntax`: from text to a tree
//! - `interpreter`: statements and expressions; `operators`
//! - `filters`, `tests`, `functions`, `methods`: all that a template may call
//! - `value`, `text`: values, and how they are written
//! - `budget`: steps and bytes that a rendering may take

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

/// The largest source, in bytes. Templates of models have up to 20 kB.
const MAX_SOURCE: usize = 1 << 20;

/// A parsed template.
pub(super) struct Program {
    body: Block,
}

impl Program {
    /// Read `source`.
    ///
    /// # Errors
    ///
    /// When it is not a template, or one that is nested too deeply.
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE {
            let message = format!("{} bytes, expected at most {MAX_SOURCE}", source.len());
            return Err(Error { line: 1, cause: Cause::Failed(message) });
        }
        Ok(Program { body: parser::parse(source)? })
    }

    /// What the template writes when it is given `variables`.
    ///
    /// # Errors
    ///
    /// When it fails, refuses, or passes a bound.
    pub(super) fn render(
        &self,
        variables: Vec<(&'static str, Value)>,
        bounds: &Bounds,
    ) -> Result<String, Error> {
        let budget = Budget::new(bounds);
        Interpreter::new(&budget, variables, bounds.output).run(&self.body)
    }
}
