//! Text from the probability of each character at each step: greedy decoding of connectionist
//! temporal classification (CTC).

/// Decodes rows of probabilities, one per step, with a value for each of `characters`; the first is
/// the blank, which separates repeated characters. Returns the text, and the mean probability of
/// its characters: 0 for an empty text.
pub(super) fn decode(values: &[f32], characters: &[&str]) -> (String, f32) {
    let (mut text, mut sum, mut count, mut before) = (String::new(), 0.0_f64, 0_u32, 0);
    for row in values.chunks_exact(characters.len().max(1)) {
        let (best, probability) =
            row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &value)| {
                if value > best.1 { (index, value) } else { best }
            });
        if best != 0 && best != before {
            text.push_str(characters[best]);
            sum += f64::from(probability);
            count += 1;
        }
        before = best;
    }
    (text, if count == 0 { 0.0 } else { (sum / f64::from(count)) as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_count_once_and_blanks_separate() {
        let rows = |indices: &[usize]| {
            let row = |&index: &usize| (0..4).map(move |at| if at == index { 0.7 } else { 0.1 });
            indices.iter().flat_map(row).collect::<Vec<f32>>()
        };
        let characters = ["", "l", "o", " "];
        for (indices, expected) in
            [(&[1, 1, 0, 1, 2, 2][..], "llo"), (&[0, 0, 0], ""), (&[1, 3, 3, 1], "l l"), (&[], "")]
        {
            let (text, score) = decode(&rows(indices), &characters);
            assert_eq!(text, expected, "{indices:?}");
            assert!((score - if expected.is_empty() { 0.0 } else { 0.7 }).abs() < 1e-6, "{score}");
        }
    }
}
