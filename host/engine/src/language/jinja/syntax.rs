//! The tree of a template.
//!
//! What a template can repeat without nesting (operators of one kind, what stands behind a value,
//! branches) is a list here and not a deeper tree, so that the tree is no deeper than the brackets
//! and blocks of its source.

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
    /// A block's text, through filters.
    SetBlock(Target, Vec<Call>, Block),
    /// The same, written.
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
    /// Several names, of which a value has one part each.
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

/// A name that is called with arguments.
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
    /// `+x`, which must be a number.
    Positive(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// Operators of one rank, from left to right.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
    /// `a < b <= c`: all must hold.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// A value, and what stands behind it in order.
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
    /// A test, and whether its answer is turned around.
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
