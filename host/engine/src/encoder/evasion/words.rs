//! English words by frequency, and repairs of unknown words.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use crate::limits::MAX_DECODINGS;

/// Ranks of the words, 0 for the most frequent. tests/scripts/evasion_tables.py writes the file.
static RANKS: LazyLock<HashMap<&str, u32, BuildHasherDefault<Fnv>>> =
    LazyLock::new(|| include_str!("words.txt").lines().zip(0..).collect());

/// Length of the longest word in the table.
const LONGEST_WORD: usize = 24;

/// Cost of a letter that belongs to no word, as the negative logarithm of its probability.
const UNKNOWN_LETTER: f32 = 6.0;

/// Maximum cost of a letter, on average, in a text that is split into words. That of English is
/// about 1.7.
const LETTER_COST: f32 = 2.3;

/// The same for a text of single letters, which stands out anyway.
const APART_COST: f32 = 3.5;

/// Rank below which words are frequent.
const FREQUENT: u32 = 4_000;

/// Rank from which words may be rare spellings of others.
const RARE: u32 = 1_000;

/// Number of times that a word must be rarer than another to be read as a spelling of it.
const MUCH_RARER: u32 = 50;

/// Minimum length of words that are split into several.
const SHORTEST_SPLIT: usize = 7;

/// FNV-1a, which takes few steps for a short word. The keys are fixed, so nothing that a client
/// sends can make them collide.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// True if `word`, in lower case, is a word.
pub(super) fn is_word(word: &str) -> bool {
    RANKS.contains_key(word)
}

/// True if `word` is rarer than `other`, or none.
pub(super) fn is_rarer(word: &str, other: &str) -> bool {
    let rank = |word| RANKS.get(word).copied().unwrap_or(u32::MAX);
    rank(word) > rank(other)
}

/// The most frequent of `words`.
fn best(words: impl Iterator<Item = String>) -> Option<String> {
    words.filter_map(|word| Some((*RANKS.get(word.as_str())?, word))).min().map(|(_, word)| word)
}

/// Letters that a digit or a sign may stand for, the likeliest first.
fn decodings(character: char) -> &'static [char] {
    match character {
        '0' => &['o'],
        '1' | '|' | '!' => &['i', 'l'],
        '2' => &['z'],
        '3' | '€' => &['e'],
        '4' | '@' => &['a'],
        '5' | '$' => &['s'],
        '6' => &['g', 'b'],
        '7' | '+' => &['t'],
        '8' => &['b'],
        '9' => &['g'],
        '(' | '¢' => &['c'],
        '¥' => &['y'],
        '£' => &['l'],
        _ => &[],
    }
}

/// True for digits and signs that may stand for a letter.
pub(super) fn is_coded(character: char) -> bool {
    !decodings(character).is_empty()
}

/// The word that `text` has in leetspeak.
pub(super) fn decoded(text: &str) -> Option<String> {
    let letters = text.chars().filter(char::is_ascii_lowercase).count();
    let coded = text.chars().filter(|character| is_coded(*character)).count();
    if letters == 0 || coded == 0 || letters + coded < 3 || text.len() > 2 * LONGEST_WORD {
        return None;
    }
    let mut all = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let options = decodings(character);
        let own = [character];
        let options = match character {
            'a'..='z' => &own,
            '(' if characters.next_if_eq(&')').is_some() => &['o'],
            _ if options.is_empty() => return None,
            _ if all.len() * options.len() > MAX_DECODINGS => &options[..1],
            _ => options,
        };
        let longer = |word: &String| {
            let word = word.clone();
            options.iter().map(move |letter| format!("{word}{letter}"))
        };
        all = all.iter().flat_map(longer).collect();
    }
    best(all.iter().cloned()).or_else(|| best(all.iter().filter_map(|word| unrepeated(word))))
}

/// The word that remains if runs of three or more equal letters are shortened.
pub(super) fn unrepeated(word: &str) -> Option<String> {
    let mut runs: Vec<(char, usize)> = Vec::new();
    for letter in word.chars() {
        match runs.last_mut() {
            Some((last, count)) if *last == letter => *count += 1,
            _ => runs.push((letter, 1)),
        }
    }
    if runs.len() > LONGEST_WORD || !runs.iter().any(|(_, count)| *count > 2) {
        return None;
    }
    let shortened = |length: usize| {
        let run = |(letter, count): &(char, usize)| {
            std::iter::repeat_n(*letter, if *count > 2 { length } else { *count })
        };
        runs.iter().flat_map(run).collect::<String>()
    };
    let all_single = runs.iter().map(|(letter, _)| *letter).collect();
    best([shortened(1), shortened(2), all_single].into_iter())
}

/// Exchanges two adjacent letters of `word`, if it is unknown or rare and the result is a word.
pub(super) fn exchanged(word: &str) -> Option<String> {
    let own = RANKS.get(word);
    if !(3..=LONGEST_WORD).contains(&word.len()) || !word.is_ascii() || own.is_some_and(|own| *own < RARE) {
        return None;
    }
    let mut buffer = [0; LONGEST_WORD];
    let letters = &mut buffer[..word.len()];
    letters.copy_from_slice(word.as_bytes());
    let mut found: Option<(u32, usize)> = None;
    for at in 1..word.len() {
        letters.swap(at - 1, at);
        if let Some(&rank) = str::from_utf8(letters).ok().and_then(|word| RANKS.get(word))
            && found.is_none_or(|(best, _)| rank < best)
        {
            found = Some((rank, at));
        }
        letters.swap(at - 1, at);
    }
    let (_, at) = found.filter(|(rank, _)| own.is_none_or(|own| rank * MUCH_RARER < *own))?;
    letters.swap(at - 1, at);
    str::from_utf8(letters).ok().map(str::to_owned)
}

/// The word that `word` is backwards.
pub(super) fn backwards(word: &str) -> Option<String> {
    let reversed: String = word.chars().rev().collect();
    let is_frequent = RANKS.get(reversed.as_str()).is_some_and(|rank| *rank < FREQUENT);
    (word.len() > 3 && is_frequent).then_some(reversed)
}

/// The word that has any letter, or none, between `before` and `behind`.
pub(super) fn filled(before: &str, behind: &str) -> Option<String> {
    if before.len() + behind.len() >= LONGEST_WORD {
        return None;
    }
    let letters = ('a'..='z').map(|letter| format!("{before}{letter}{behind}"));
    best(letters.chain([format!("{before}{behind}")]))
}

/// Splits `letters` of lower case ASCII into words by their frequency. Letters of no word stay
/// together. Returns the words and their cost.
fn split(letters: &str) -> (Vec<&str>, f32) {
    // The lowest cost of the beginning up to a position, and the length of its last part: 0 for a
    // letter of no word.
    let mut costs = vec![(0.0_f32, 0_usize)];
    for end in 1..=letters.len() {
        let mut cheapest = (costs[end - 1].0 + UNKNOWN_LETTER, 0);
        for length in 1..=end.min(LONGEST_WORD) {
            if let Some(rank) = RANKS.get(&letters[end - length..end]) {
                let cost = costs[end - length].0 + ((rank + 1) as f32 * 10.0).ln();
                if cost < cheapest.0 {
                    cheapest = (cost, length);
                }
            }
        }
        costs.push(cheapest);
    }
    let (mut words, mut end) = (Vec::new(), letters.len());
    while end > 0 {
        let mut start = end;
        while start > 0 && costs[start].1 == 0 {
            start -= 1;
        }
        if start == end {
            start = end - costs[end].1;
        }
        words.push(&letters[start..end]);
        end = start;
    }
    words.reverse();
    (words, costs[letters.len()].0)
}

/// The words of `letters`, which have no blanks between them, if these words are frequent.
pub(super) fn spaced(letters: &str) -> Option<String> {
    if letters.len() < SHORTEST_SPLIT || !letters.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let (words, cost) = split(letters);
    let is_frequent = |word: &&str| word.len() > 2 && RANKS.get(word).is_some_and(|rank| *rank < FREQUENT);
    let is_clear = match words.len() {
        0 | 1 => false,
        2 => words.iter().all(is_frequent),
        _ => cost <= letters.len() as f32 * LETTER_COST,
    };
    is_clear.then(|| words.join(" "))
}

/// The words of `letters`, between which a text has blanks or signs, if there is a word among
/// them; or the letters joined.
pub(super) fn assembled(letters: &str) -> String {
    let (words, cost) = split(letters);
    if cost <= letters.len() as f32 * APART_COST { words.join(" ") } else { letters.to_owned() }
}
