//! The longest path through a function without a check of the clock, in operators.
//!
//! The clock is checked at the start of each function and each loop iteration, so a path between
//! two checks only goes forward, and its length is known at each operator: at a label it is that of
//! the longest path that arrives there. A function that returns leaves the rest of its path to its
//! caller, which counts the maximum that any function may leave.

use wasmparser::{Catch, Operator};

/// Maximum path: about 10 µs of arithmetic, or 1 ms when each operator waits for memory.
const MAX: u32 = 8 << 10;

/// Maximum path after the last check that a function leaves to its caller, and the part that it may
/// add to the rest left by a function that it called. The stack bounds the number of functions that
/// return one after another.
const RETURNED: u32 = 2 << 10;
const RETURNING: u32 = 32;

/// Weight of a call out of the module. The host does not check the clock.
const CALL_OUT: u32 = MAX / 4;

/// Weight of division and similar operators.
const SLOW: u32 = 8;

/// An open block.
struct Frame {
    is_loop: bool,
    /// Longest path that arrives at its end by a branch.
    at_end: Option<u32>,
    /// Path that arrives at its `else`.
    at_else: Option<u32>,
}

/// The path at each operator of a function, one after another.
pub(super) struct Pace {
    /// Length of the path; `None` where no path arrives.
    way: Option<u32>,
    /// Open blocks, the function itself first.
    open: Vec<Frame>,
    imported_functions: u32,
}

impl Pace {
    pub(super) fn new(imported_functions: u32) -> Self {
        let function = Frame { is_loop: false, at_end: None, at_else: None };
        Pace { way: Some(0), open: vec![function], imported_functions }
    }

    /// Steps over `operator`. Returns true if a check of the clock must be inserted before it.
    pub(super) fn step(&mut self, operator: &Operator<'_>) -> bool {
        let Some(way) = self.way else {
            self.follow(operator, None);
            return false;
        };
        let weight = self.weight(operator);
        let is_long = way + weight > MAX || (self.may_return(operator) && way > RETURNED + RETURNING);
        let way = if is_long { weight } else { way + weight };
        self.follow(operator, Some(way));
        is_long
    }

    fn weight(&self, operator: &Operator<'_>) -> u32 {
        match operator {
            Operator::Call { function_index } if *function_index < self.imported_functions => CALL_OUT,
            Operator::CallIndirect { .. } | Operator::CallRef { .. } => CALL_OUT,
            Operator::MemoryGrow { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. } => CALL_OUT,
            Operator::I32DivS
            | Operator::I32DivU
            | Operator::I32RemS
            | Operator::I32RemU
            | Operator::I64DivS
            | Operator::I64DivU
            | Operator::I64RemS
            | Operator::I64RemU
            | Operator::F32Div
            | Operator::F64Div
            | Operator::F32Sqrt
            | Operator::F64Sqrt
            | Operator::F32x4Div
            | Operator::F64x2Div
            | Operator::F32x4Sqrt
            | Operator::F64x2Sqrt => SLOW,
            _ => 1,
        }
    }

    /// Returns true if the function may end with this operator, other than by a tail call.
    fn may_return(&self, operator: &Operator<'_>) -> bool {
        let is_function = |depth: u32| depth as usize + 1 == self.open.len();
        match operator {
            Operator::Return => true,
            Operator::End => self.open.len() == 1,
            Operator::BrTable { targets } => {
                is_function(targets.default()) || targets.targets().flatten().any(is_function)
            }
            _ => branch(operator).is_some_and(is_function),
        }
    }

    /// Continues after `operator`, which `way` has reached.
    fn follow(&mut self, operator: &Operator<'_>, way: Option<u32>) {
        self.way = way;
        match operator {
            Operator::Block { .. } | Operator::Try { .. } => self.open(false, None),
            Operator::TryTable { try_table } => {
                for catch in &try_table.catches {
                    let (Catch::One { label, .. }
                    | Catch::OneRef { label, .. }
                    | Catch::All { label }
                    | Catch::AllRef { label }) = catch;
                    self.arrive(*label, Some(MAX));
                }
                self.open(false, None);
            }
            Operator::If { .. } => self.open(false, way),
            Operator::Loop { .. } => {
                self.open(true, None);
                self.way = way.map(|_| 0);
            }
            Operator::Else => {
                if let Some(frame) = self.open.last_mut() {
                    frame.at_end = frame.at_end.max(way);
                    self.way = frame.at_else.take();
                }
            }
            Operator::Catch { .. } | Operator::CatchAll => {
                if let Some(frame) = self.open.last_mut() {
                    frame.at_end = frame.at_end.max(way);
                }
                self.way = Some(MAX);
            }
            Operator::End | Operator::Delegate { .. } => {
                if let Some(frame) = self.open.pop() {
                    self.way = way.max(frame.at_end).max(frame.at_else);
                }
            }
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten().chain([targets.default()]) {
                    self.arrive(depth, way);
                }
                self.way = None;
            }
            Operator::Br { relative_depth } => {
                self.arrive(*relative_depth, way);
                self.way = None;
            }
            Operator::Return
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. }
            | Operator::Unreachable
            | Operator::Throw { .. }
            | Operator::ThrowRef
            | Operator::Rethrow { .. } => self.way = None,
            // The called function checks the clock at its start.
            Operator::Call { function_index } if *function_index >= self.imported_functions => {
                self.way = way.map(|_| RETURNED);
            }
            _ => {
                if let Some(depth) = branch(operator) {
                    self.arrive(depth, way);
                }
            }
        }
    }

    fn open(&mut self, is_loop: bool, at_else: Option<u32>) {
        self.open.push(Frame { is_loop, at_end: None, at_else });
    }

    /// Records that a path arrives at the label `depth` blocks further out.
    fn arrive(&mut self, depth: u32, way: Option<u32>) {
        let frame = (self.open.len().checked_sub(depth as usize + 1)).and_then(|at| self.open.get_mut(at));
        if let Some(frame) = frame.filter(|frame| !frame.is_loop) {
            frame.at_end = frame.at_end.max(way);
        }
    }
}

/// Target of an operator with one branch target.
fn branch(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::Br { relative_depth }
        | Operator::BrIf { relative_depth }
        | Operator::BrOnNull { relative_depth }
        | Operator::BrOnNonNull { relative_depth }
        | Operator::BrOnCast { relative_depth, .. }
        | Operator::BrOnCastFail { relative_depth, .. } => Some(*relative_depth),
        _ => None,
    }
}
