//! Labelled spans of a text from the labels of its tokens.

use serde::Serialize;

use super::scores::softmax;
use super::tokenizer::Window;

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Span {
    /// Label without its position tag, such as `EMAIL` for `B-EMAIL`.
    pub(super) label: String,
    /// Average probability of the label over the tokens of the span.
    pub(super) score: f32,
    /// First character, in Unicode scalar values.
    pub(super) start: usize,
    /// Character behind the last one.
    pub(super) end: usize,
}

/// Position of a token in its span, by the letter in front of a label.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// `B-`: the first token.
    Begin,
    /// `I-`, or no letter: a further token.
    Inside,
    /// `E-`, `L-`: the last token.
    End,
    /// `S-`, `U-`: the only token.
    Single,
}

/// Label of tokens outside of all spans.
const OUTSIDE: &str = "O";

/// The spans of a window from its values, `[tokens, labels]`, which become probabilities.
///
/// Adjacent tokens of the same label are one span, unless a tag begins or ends one there. That is
/// the strategy `simple` of the `transformers` library, extended to the tags of BIOES and BILOU.
pub(super) fn spans(window: &Window, values: &mut [f32], labels: &[String]) -> Vec<Span> {
    let mut spans: Vec<(Span, usize)> = Vec::new();
    // The label that the last token continues; `None` behind a token outside of all spans.
    let mut open: Option<&str> = None;
    let rows = values.chunks_exact_mut(labels.len().max(1));
    for (index, row) in rows.enumerate().take(window.ids.len()) {
        softmax(row);
        if window.added.get(index).copied().unwrap_or(false) {
            continue;
        }
        let best = row.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((label, &score)) = best else { continue };
        let (position, label) = tag(&labels[label]);
        if label == OUTSIDE {
            open = None;
            continue;
        }
        let (start, end) = window.offsets.get(index).copied().unwrap_or_default();
        let continues = matches!(position, Position::Inside | Position::End) && open == Some(label);
        match spans.last_mut().filter(|_| continues) {
            Some((span, tokens)) => {
                span.score += score;
                span.end = end;
                *tokens += 1;
            }
            None => spans.push((Span { label: label.to_owned(), score, start, end }, 1)),
        }
        open = matches!(position, Position::Begin | Position::Inside).then_some(label);
    }
    let mean = |(span, tokens): (Span, usize)| Span { score: span.score / tokens as f32, ..span };
    spans.into_iter().map(mean).collect()
}

/// Joins the spans of overlapping windows. Those of one label are united, with the higher score. Of
/// two labels the longer span stays, or the one with the higher score, and the other keeps the
/// characters outside of it.
pub(super) fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.start);
    let mut merged: Vec<Span> = Vec::new();
    for mut span in spans {
        let Some(last) = merged.last_mut().filter(|last| span.start < last.end) else {
            merged.push(span);
            continue;
        };
        if span.label == last.label {
            last.end = last.end.max(span.end);
            last.score = last.score.max(span.score);
            continue;
        }
        let (length, before) = (span.end - span.start, last.end - last.start);
        if length > before || length == before && span.score > last.score {
            last.end = span.start;
            if last.start == last.end {
                merged.pop();
            }
            merged.push(span);
        } else if span.end > last.end {
            span.start = last.end;
            merged.push(span);
        }
    }
    merged
}

fn tag(label: &str) -> (Position, &str) {
    let position = match label.get(..2) {
        Some("B-") => Position::Begin,
        Some("I-") => Position::Inside,
        Some("E-" | "L-") => Position::End,
        Some("S-" | "U-") => Position::Single,
        _ => return (Position::Inside, label),
    };
    (position, &label[2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(labels: &[&str], tokens: &[&str]) -> Vec<(String, usize, usize)> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let length = tokens.len();
        let window = Window {
            ids: vec![1; length],
            types: vec![0; length],
            offsets: (0..length).map(|index| (index * 2, index * 2 + 1)).collect(),
            added: tokens.iter().map(|&token| token == "[CLS]").collect(),
        };
        let row = |token: &&str| -> Vec<f32> {
            labels.iter().map(|label| if label == token { 9.0 } else { 0.0 }).collect()
        };
        let mut values: Vec<f32> = tokens.iter().flat_map(row).collect();
        let spans = spans(&window, &mut values, &labels);
        spans.into_iter().map(|span| (span.label, span.start, span.end)).collect()
    }

    #[test]
    fn tags_begin_continue_and_end_spans() {
        let bio = ["O", "B-A", "I-A", "B-B", "I-B"];
        let span = |label: &str, start: usize, end: usize| (label.to_owned(), start, end);
        let cases: [(&[&str], Vec<_>); 5] = [
            (&["[CLS]", "B-A", "I-A", "O", "B-B"], vec![span("A", 2, 5), span("B", 8, 9)]),
            (&["B-A", "B-A", "I-A"], vec![span("A", 0, 1), span("A", 2, 5)]),
            (&["I-A", "I-A", "I-B"], vec![span("A", 0, 3), span("B", 4, 5)]),
            (&["B-A", "O", "I-A"], vec![span("A", 0, 1), span("A", 4, 5)]),
            (&["O", "O"], Vec::new()),
        ];
        for (tokens, expected) in cases {
            assert_eq!(found(&bio, tokens), expected, "{tokens:?}");
        }
        let bioes = ["O", "B-A", "I-A", "E-A", "S-A"];
        let expected = [span("A", 0, 5), span("A", 6, 7), span("A", 8, 9)];
        assert_eq!(found(&bioes, &["B-A", "I-A", "E-A", "S-A", "I-A"]), expected);
        assert_eq!(found(&["O", "PHONE"], &["PHONE", "PHONE", "O"]), [span("PHONE", 0, 3)]);
    }

    #[test]
    fn overlapping_windows_give_one_span() {
        let span = |label: &str, start, end, score| Span { label: label.to_owned(), score, start, end };
        let a = |start, end, score| span("A", start, end, score);
        let spans = vec![a(0, 4, 0.9), a(10, 14, 0.8), a(2, 8, 0.5), a(10, 14, 0.9), a(12, 20, 0.1)];
        assert_eq!(merge(spans), [a(0, 8, 0.9), a(10, 20, 0.9)]);
        let b = |start, end, score| span("B", start, end, score);
        assert_eq!(merge(vec![a(0, 4, 0.9), b(2, 8, 0.5)]), [a(0, 2, 0.9), b(2, 8, 0.5)]);
        assert_eq!(merge(vec![a(0, 6, 0.9), b(4, 8, 0.5)]), [a(0, 6, 0.9), b(6, 8, 0.5)]);
        assert_eq!(merge(vec![a(0, 4, 0.5), b(0, 4, 0.9)]), [b(0, 4, 0.9)]);
        assert_eq!(merge(vec![a(0, 8, 0.5), b(2, 4, 0.9)]), [a(0, 8, 0.5)]);
    }
}
