//! Choices after a prompt as a tree of tokens: what several choices begin with is computed once.
//!
//! The tree is computed in runs of tokens. The first run continues the prompt, so that most
//! questions take no further pass. Each other run continues a copy of another run's sequence, from
//! the token where the two part.

use std::collections::VecDeque;
use std::fmt;

use infer_kernels::BLOCK_TOKENS;

use super::decoder::Run;
use super::kv::{Full, KvPool, Sequence};
use super::sampler::log_sum_exp;

/// The choices of a question, of which there is at least one; none is empty.
#[derive(Default)]
pub(super) struct Choices {
    /// The tree; the first node is the end of the prompt.
    nodes: Vec<Node>,
    /// Node at which each choice ends.
    ends: Vec<usize>,
    /// Runs, each after the run that it parts from.
    runs: Vec<Part>,
    /// The first run that was not computed.
    next: usize,
    /// Nodes of the rows of this pass.
    rows: Vec<usize>,
}

struct Node {
    token: u32,
    /// Log-probability of the tokens up to this one.
    logprob: f32,
    children: Vec<usize>,
}

/// A path in the tree whose tokens are computed together.
struct Part {
    /// Run that it parts from, and number of tokens of the choice before it.
    from: (usize, usize),
    /// Nodes with children, the first of which is not in `from`.
    nodes: Vec<usize>,
    sequence: Sequence,
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} choices", self.ends.len())
    }
}

impl Choices {
    /// The tree of `choices`.
    pub(super) fn new(choices: &[Vec<u32>]) -> Self {
        let node = |token| Node { token, logprob: 0.0, children: Vec::new() };
        let mut nodes = vec![node(0)];
        let mut ends = Vec::with_capacity(choices.len());
        for choice in choices {
            let mut at = 0;
            for &token in choice {
                let known = nodes[at].children.iter().find(|&&child| nodes[child].token == token);
                at = match known {
                    Some(&known) => known,
                    None => {
                        nodes.push(node(token));
                        let new = nodes.len() - 1;
                        nodes[at].children.push(new);
                        new
                    }
                };
            }
            ends.push(at);
        }
        let runs = runs(&nodes);
        Choices { nodes, ends, runs, next: 1, rows: Vec::new() }
    }

    /// Tokens of the first run, which are computed after the prompt.
    pub(super) fn first(&self) -> impl Iterator<Item = u32> {
        self.tokens(0)
    }

    /// Maximum number of blocks that they need beside a prompt of `prompt` tokens and the first
    /// run.
    pub(super) fn blocks(&self, prompt: usize) -> usize {
        let own =
            |run: &Part| ((prompt + run.from.1) % BLOCK_TOKENS + run.nodes.len()).div_ceil(BLOCK_TOKENS);
        self.runs[1..].iter().map(own).sum()
    }

    /// The tokens of each choice.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<Vec<u32>> {
        let parent = |node: usize| self.nodes.iter().position(|other| other.children.contains(&node));
        let path = |&end: &usize| {
            let nodes = std::iter::successors(Some(end), |&node| parent(node)).filter(|&node| node > 0);
            let mut tokens: Vec<_> = nodes.map(|node| self.nodes[node].token).collect();
            tokens.reverse();
            tokens
        };
        self.ends.iter().map(path).collect()
    }

    /// The sequences of its runs.
    #[cfg(test)]
    pub(super) fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.runs.iter().map(|run| &run.sequence)
    }

    fn tokens(&self, run: usize) -> impl Iterator<Item = u32> {
        self.runs[run].nodes.iter().map(|&node| self.nodes[node].token)
    }

    /// Number of rows of the next run.
    pub(super) fn pending(&self) -> usize {
        self.runs.get(self.next).map_or(0, |run| run.nodes.len())
    }

    /// True if the pass computes runs after the first.
    pub(super) fn is_after_first(&self) -> bool {
        self.next > 1
    }

    /// True if all choices are scored, once the first run is computed.
    pub(super) fn is_done(&self) -> bool {
        self.next == self.runs.len()
    }

    /// The log-probability of each choice.
    pub(super) fn logprobs(&self) -> Vec<f32> {
        self.ends.iter().map(|&end| self.nodes[end].logprob).collect()
    }

    /// Prepares to score the first run from its token `from`; 0 is the end of the prompt.
    pub(super) fn prepare_first(&mut self, from: usize, to: usize) {
        self.rows.clear();
        let path = [0].into_iter().chain(self.runs[0].nodes.iter().copied());
        self.rows.extend(path.skip(from).take(to - from));
    }

    /// Takes part in the next pass with at most `max_rows` rows, but always with at least one run.
    /// `first` is the sequence of the prompt, of `prompt` tokens, and the first run. Returns the
    /// number of rows.
    ///
    /// # Errors
    ///
    /// If the pool has no blocks for them.
    pub(super) fn prepare(
        &mut self,
        first: &Sequence,
        prompt: usize,
        max_rows: usize,
        pool: &KvPool,
    ) -> Result<usize, Full> {
        self.rows.clear();
        // Runs that part from one of this pass come later.
        let computed = self.next;
        for index in computed..self.runs.len() {
            let Part { from: (parent, depth), ref nodes, .. } = self.runs[index];
            if parent >= computed || !self.rows.is_empty() && self.rows.len() + nodes.len() > max_rows {
                break;
            }
            let parent = if parent == 0 { first } else { &self.runs[parent].sequence };
            let mut own = parent.fork_at(prompt + depth);
            let tokens: Vec<_> = self.tokens(index).collect();
            let room = own.extend(pool, &tokens);
            if room.is_err() && !self.rows.is_empty() {
                break;
            }
            room?;
            self.rows.extend_from_slice(&self.runs[index].nodes);
            self.runs[index].sequence = own;
            self.next += 1;
        }
        Ok(self.rows.len())
    }

    /// The runs of the pass, as prepared.
    pub(super) fn runs(&mut self) -> impl Iterator<Item = Run<'_>> {
        let mut left = self.rows.len();
        let prepared = self.runs[..self.next].iter_mut().rev().map_while(move |part| {
            let rows = part.nodes.len();
            left = left.checked_sub(rows).filter(|_| left > 0)?;
            let start = part.sequence.len() - rows;
            Some(Run { sequence: &mut part.sequence, start, logit_rows: rows })
        });
        prepared.collect::<Vec<_>>().into_iter().rev()
    }

    /// Number of rows of logits of the pass.
    pub(super) fn logit_rows(&self) -> usize {
        self.rows.len()
    }

    /// Processes row `row` of the pass: scores the tokens that may follow it.
    pub(super) fn take(&mut self, row: usize, logits: &[f32]) {
        let node = self.rows[row];
        let normaliser = log_sum_exp(logits);
        let before = self.nodes[node].logprob;
        for child in 0..self.nodes[node].children.len() {
            let child = self.nodes[node].children[child];
            let token = self.nodes[child].token as usize;
            self.nodes[child].logprob = before + logits[token] - normaliser;
        }
        if row + 1 == self.rows.len() {
            self.rows.clear();
            self.release();
        }
    }

    /// Drops the sequences that no further run needs.
    fn release(&mut self) {
        let needed: Vec<_> = self.runs[self.next..].iter().map(|run| run.from.0).collect();
        for (index, run) in self.runs[..self.next].iter_mut().enumerate() {
            if !needed.contains(&index) {
                run.sequence = Sequence::default();
            }
        }
    }
}

/// Divides the tree into runs: each follows the child with the most nodes to compute.
fn runs(nodes: &[Node]) -> Vec<Part> {
    // Number of nodes to compute below and with each. Children come after their parents.
    let mut sizes: Vec<usize> = nodes.iter().map(|node| usize::from(!node.children.is_empty())).collect();
    for (index, node) in nodes.iter().enumerate().rev() {
        sizes[index] += node.children.iter().map(|&child| sizes[child]).sum::<usize>();
    }
    let mut runs: Vec<Part> = Vec::new();
    // The first node of a run, `None` for the first run, and where it parts.
    let mut waiting = VecDeque::from([(None, (0, 0))]);
    while let Some((start, from)) = waiting.pop_front() {
        let (run, mut path, mut depth) = (runs.len(), Vec::new(), from.1);
        let mut at = match start {
            Some(start) => {
                path.push(start);
                depth += 1;
                start
            }
            None => 0,
        };
        loop {
            let inner = || nodes[at].children.iter().copied().filter(|&child| sizes[child] > 0);
            // The first of the largest.
            let Some(largest) = inner().rev().max_by_key(|&child| sizes[child]) else { break };
            waiting
                .extend(inner().filter(|&child| child != largest).map(|child| (Some(child), (run, depth))));
            path.push(largest);
            depth += 1;
            at = largest;
        }
        runs.push(Part { from, nodes: path, sequence: Sequence::default() });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(choices: &[&[u32]]) -> Choices {
        Choices::new(&choices.iter().map(|choice| choice.to_vec()).collect::<Vec<_>>())
    }

    /// Tokens of each run, with the run and the depth that it parts from.
    fn parts(choices: &Choices) -> Vec<((usize, usize), Vec<u32>)> {
        let part = |run: usize| (choices.runs[run].from, choices.tokens(run).collect());
        (0..choices.runs.len()).map(part).collect()
    }

    #[test]
    fn common_tokens_are_computed_once() {
        // As `safe`, and `unsafe` with one of three codes.
        let guard = tree(&[&[1, 2], &[1, 3, 4, 5], &[1, 3, 4, 6], &[1, 3, 4, 7]]);
        assert_eq!(parts(&guard), [((0, 0), vec![1, 3, 4])]);
        assert_eq!(tree(&[&[1], &[2]]).first().count(), 0);
        assert_eq!(parts(&tree(&[&[1, 2, 3]])), [((0, 0), vec![1, 2])]);
        // A choice that another one begins with, and one that occurs twice.
        let both = tree(&[&[1, 2], &[1], &[1, 2]]);
        assert_eq!((parts(&both), &*both.ends), (vec![((0, 0), vec![1])], &[2, 1, 2][..]));
        assert_eq!(both.all(), [vec![1, 2], vec![1], vec![1, 2]]);
    }

    #[test]
    fn runs_part_where_choices_differ() {
        let choices = tree(&[&[1, 2, 3, 9], &[1, 4, 5, 6, 9], &[1, 4, 5, 7, 9], &[8, 9]]);
        let expected =
            [((0, 0), vec![1, 4, 5, 6]), ((0, 0), vec![8]), ((0, 1), vec![2, 3]), ((0, 3), vec![7])];
        assert_eq!(parts(&choices), expected);
        // After 30 tokens, of which 14 are in the last block of 16: a copy of that block for each
        // run, and a further block for the one that goes beyond it.
        assert_eq!(BLOCK_TOKENS, 16);
        assert_eq!(choices.blocks(30), 1 + 2 + 1);
    }
}
