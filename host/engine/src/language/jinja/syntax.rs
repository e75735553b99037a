//! The syntax tree of a template.
//!
//! Constructs that can repeat without nesting (operators of equal precedence, postfix operations,
//! branches) are lists, not deeper trees. The tree is therefore no deeper than the brackets and
//! blocks of its source.

use std::sync::Arc;

pub(super) type Name = Arc<str>;

pub(super) type Block = Vec<Statement>;

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) kind: StatementKind,
}

#[derive(Debug)]
pub(super) enum StatementKind {
    Text(Name),
    Write(Expression),
    /// Conditions and their blocks in order, and the block of `else`.
    If(Vec<(Expression, Block)>, Block),
    For(Box<For>),
    Set(Target, Expression),
    /// Assigns a block's text after filters.
    SetBlock(Target, Vec<Call>, Block),
    /// Writes a block's text after filters.
    FilterBlock(Vec<Call>, Block),
    With(Vec<(Target, Expression)>, Block),
    Macro(Arc<Macro>),
    Do(Expression),
    /// Statements without a scope of their own.
    Group(Block),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expression,
    pub(super) condition: Option<Expression>,
    pub(super) body: Block,
    pub(super) otherwise: Block,
}

#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    /// Several names, each for one item of a value.
    Names(Vec<Name>),
    /// An attribute of a namespace.
    Attribute(Name, Name),
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(super) name: Name,
    pub(super) parameters: Vec<(Name, Option<Expression>)>,
    pub(super) body: Block,
}

/// A name with arguments.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: Name,
    pub(super) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expression>,
    pub(super) named: Vec<(Name, Expression)>,
}

#[derive(Debug)]
pub(super) enum Literal {
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Name),
}

#[derive(Debug)]
pub(super) enum Expression {
    Constant(Literal),
    Variable(Name),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Map(Vec<(Expression, Expression)>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    /// `+x`, where `x` must be a number.
    Positive(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// Operators of equal precedence, from left to right.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
    /// `a < b <= c`: all must hold.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// A value, and the operations that follow it in order.
    Postfix(Box<Expression>, Vec<Postfix>),
    /// `a if b else c`.
    Choice(Box<Expression>, Box<Expression>, Option<Box<Expression>>),
}

#[derive(Debug)]
pub(super) enum Postfix {
    Attribute(Name),
    Item(Expression),
    Slice(Option<Expression>, Option<Expression>, Option<Expression>),
    Call(Arguments),
    Filter(Call),
    /// A test, which is negated if the flag is true.
    Test(Call, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Concatenate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}
