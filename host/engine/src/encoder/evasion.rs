//! A further reading of a text, in which evasive spellings are undone.
//!
//! People hide a word from a filter by lookalikes of its letters, digits and signs for letters
//! (`1d10t`), signs or blanks between letters (`i d i o t`), repeated, exchanged or hidden letters
//! (`id*ot`), or by leaving out blanks. The reading has the words that a list of English words
//! knows, wherever an unknown word of the text is such a spelling of one. Known words stay, so do
//! texts in other scripts, addresses and names of users. The reading is an addition: it replaces no
//! other.
//!
//! - `letters`: characters that stand for Latin letters
//! - `words`: the list, and the repairs of one word

mod letters;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use words::{
    assembled, backwards, decoded, exchanged, filled, is_coded, is_rarer, is_word, spaced, unrepeated,
};

/// Returns the reading of `text` in which evasive spellings are undone, if it differs from `first`,
/// the canonical form of `text`. `canonical` computes that form of other texts.
pub(super) fn undone(text: &str, first: &str, canonical: impl Fn(&str) -> String) -> Option<String> {
    let latin = letters::latin(text);
    let base = if latin == text { Cow::Borrowed(first) } else { Cow::Owned(canonical(&latin)) };
    let tokens: Vec<Token> = base.split_whitespace().map(Token::new).collect();
    let (undone, is_changed) = undo(&tokens);
    if !is_changed && latin == text {
        return None;
    }
    let plain = |text: &str| folded(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
    (plain(&undone) != plain(first) && is_understood(&undone)).then_some(undone)
}

/// True if at least half of the words in Latin letters are known. In other languages, few are.
fn is_understood(text: &str) -> bool {
    let words = || text.split(|character: char| !character.is_alphabetic()).filter(|word| word.len() > 1);
    let is_latin = |word: &&str| word.bytes().any(|byte| byte.is_ascii_alphabetic());
    let known = words().filter(|word| is_word(&word.to_lowercase())).count();
    known * 2 >= words().filter(is_latin).count()
}

/// `text` in lower case, without marks on its letters.
fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        return if is_lower { Cow::Borrowed(text) } else { Cow::Owned(text.to_ascii_lowercase()) };
    }
    let letters = text.nfd().filter(|character| !is_combining_mark(*character));
    Cow::Owned(letters.flat_map(char::to_lowercase).collect())
}

/// Signs that stand for a hidden letter.
const HIDING: [char; 11] = ['*', '#', '-', '_', '.', '~', '%', '?', '+', '^', '='];

/// A part of a text between blanks.
struct Token<'t> {
    text: &'t str,
    /// The text in lower case, without marks.
    folded: Cow<'t, str>,
    /// Position of the word in `folded`, without the signs around it.
    word: (usize, usize),
}

impl<'t> Token<'t> {
    fn new(text: &'t str) -> Self {
        let folded = folded(text);
        let start = folded.find(char::is_alphanumeric).unwrap_or(folded.len());
        let end = folded
            .rfind(char::is_alphanumeric)
            .map_or(start, |last| last + folded[last..].chars().next().map_or(0, char::len_utf8));
        Token { text, folded, word: (start, end) }
    }

    fn word(&self) -> &str {
        &self.folded[self.word.0..self.word.1]
    }

    /// True if signs follow the word.
    fn is_closed(&self) -> bool {
        self.word.1 < self.folded.len()
    }

    /// The letter of a token of one character, in leetspeak too.
    fn letter(&self) -> Option<char> {
        let mut characters = self.folded.chars();
        let first = characters.next()?;
        let is_letter = first.is_ascii_lowercase() || is_coded(first);
        (is_letter && characters.all(|sign| matches!(sign, '.' | ',' | '!' | '?'))).then_some(first)
    }

    /// True for addresses and names, which stay.
    fn is_name(&self) -> bool {
        let text = &self.folded;
        let is_tag = text.strip_prefix(['@', '#']).is_some_and(|name| {
            name.len() > 1
                && name.chars().all(|character| character.is_alphanumeric() || "_.:,!?".contains(character))
        });
        let is_leet = is_tag && decoded(text).is_some() && !is_word(self.word());
        (is_tag && !is_leet) || text.contains("://") || text.starts_with("www.") || {
            let is_user = |user: &str| {
                user.len() > 1 && user.chars().all(|c| c.is_alphanumeric() || "_.-+".contains(c))
            };
            text.split_once('@').is_some_and(|(user, host)| is_user(user) && host.contains('.'))
        }
    }
}

/// True for a word that needs no repair.
fn is_known(word: &str) -> bool {
    is_word(word)
        || word.chars().all(|character| !character.is_ascii_lowercase())
        || word.split_once(['\'', '’']).is_some_and(|(before, ending)| {
            matches!(ending, "s" | "t" | "d" | "m" | "re" | "ve" | "ll" | "all" | "") && !before.is_empty()
        })
}

/// Text of the tokens with evasive spellings undone, and true if there are any.
fn undo(tokens: &[Token<'_>]) -> (String, bool) {
    let mut parts: Vec<Cow<'_, str>> = Vec::with_capacity(tokens.len());
    // First token from which single letters are tried: after a failure half of them are left out,
    // so that the time grows with the length of the text.
    let (mut at, mut retry) = (0, 0);
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        let mut found = None;
        if at >= retry {
            let run = single_letters(rest);
            let signs = rest[..run.len()].last().map_or("", |last| &last.folded[last.word.1..]);
            found = spelled_out(&run).map(|words| (words + signs, run.len()));
            retry = at + run.len() / 2 + 1;
        }
        if found.is_none() && !token.is_name() {
            found = parted(rest).or_else(|| repaired(token).map(|word| (word, 1)));
        }
        let (part, used) =
            found.map_or((Cow::Borrowed(token.text), 1), |(part, used)| (Cow::Owned(part), used));
        parts.push(part);
        at += used;
    }
    let is_changed = parts.iter().any(|part| matches!(part, Cow::Owned(_)));
    (parts.join(" "), is_changed)
}

/// The single letters with which `tokens` begin, up to one with a sign behind it.
fn single_letters(tokens: &[Token<'_>]) -> Vec<char> {
    let mut letters = Vec::new();
    for token in tokens {
        let Some(letter) = token.letter() else { break };
        letters.push(letter);
        if token.is_closed() {
            break;
        }
    }
    letters
}

/// The words of single letters, which blanks separate.
fn spelled_out(letters: &[char]) -> Option<String> {
    let plain = letters.iter().filter(|letter| letter.is_ascii_lowercase()).count();
    if letters.len() < 3 || plain < 2 || plain * 3 < letters.len() {
        return None;
    }
    let text: String = letters.iter().collect();
    if plain == letters.len() { Some(assembled(&text)) } else { decoded(&text) }
}

/// A word that a blank separates, with the signs behind it, and the number of tokens.
fn parted(tokens: &[Token<'_>]) -> Option<(String, usize)> {
    let [first, second, ..] = tokens else { return None };
    let (one, two) = (first.word(), second.word());
    let is_plain = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    if first.is_closed() || second.word.0 > 0 || !is_plain(one) || !is_plain(two) {
        return None;
    }
    // `so d u m b` is no `sod`: the letters are a word of their own.
    let is_run = two.len() == 1 && tokens.get(2).is_some_and(|third| third.letter().is_some());
    if one.len() > 1 && is_run {
        return None;
    }
    let is_part = |word: &str| !is_word(word) || (word.len() == 1 && !matches!(word, "a" | "i"));
    if !is_part(one) && !is_part(two) {
        return None;
    }
    let joined = format!("{one}{two}");
    // `b and` is no part of `band`, which is rarer than `and`.
    let is_usual = |word: &str| word.len() < 3 || is_rarer(word, &joined);
    let is_parted = is_usual(one) && is_usual(two) && is_word(&joined);
    let (before, behind) = (&first.folded[..first.word.0], &second.folded[second.word.1..]);
    is_parted.then(|| (format!("{before}{joined}{behind}"), 2))
}

/// The token with its words repaired, if one of them is not known.
fn repaired(token: &Token<'_>) -> Option<String> {
    let word = token.word();
    let (start, end) = token.word;
    let around = |word: &str| format!("{}{word}{}", &token.folded[..start], &token.folded[end..]);
    if word.is_empty() || is_known(word) {
        return exchanged(word).map(|word| around(&word));
    }
    let coded = token.folded.find(|c: char| c.is_alphanumeric() || is_coded(c)).unwrap_or(start);
    let ends = [end, token.folded.len()];
    for (from, to) in [start, coded].into_iter().flat_map(|from| ends.map(|to| (from, to))) {
        if let Some(word) = decoded(&token.folded[from..to]) {
            return Some(format!("{}{word}{}", &token.folded[..from], &token.folded[to..]));
        }
    }
    if let Some(word) = signed(word) {
        return Some(around(&word));
    }
    if word.len() > 1
        && matches!(&token.folded[end..], "*" | "#")
        && let Some(word) = filled(word, "")
    {
        return Some(format!("{}{word}", &token.folded[..start]));
    }
    // Words between signs, one by one.
    if word
        .chars()
        .any(|character| character.is_numeric() || (!character.is_ascii() && character.is_alphabetic()))
    {
        return None;
    }
    let mut parts = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let is_letter = |character: char| character.is_ascii_lowercase();
        let end = rest.find(|next| is_letter(next) != is_letter(first)).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(end);
        match mended(part) {
            Some(mended) => parts.push_str(&mended),
            None => parts.push_str(part),
        }
        rest = behind;
    }
    (parts != word).then(|| around(&parts))
}

/// A word that signs interrupt or whose letter a sign hides.
fn signed(word: &str) -> Option<String> {
    let parts: Vec<&str> = word.split(|character: char| !character.is_alphanumeric()).collect();
    let signs = word.chars().filter(|character| !character.is_alphanumeric()).count();
    if signs == 0
        || !word.chars().all(|character| character.is_ascii_lowercase() || !character.is_alphanumeric())
    {
        return None;
    }
    let joined = parts.concat();
    if joined.len() > 2 && parts.iter().all(|part| part.len() == 1) {
        return Some(assembled(&joined));
    }
    if parts.iter().all(|part| part.is_empty() || (part.len() > 2 && is_word(part))) {
        return None;
    }
    match parts[..] {
        [before, behind]
            if word.contains(HIDING) && joined.len() > 2 - usize::from(word.contains(['*', '#'])) =>
        {
            filled(before, behind)
        }
        _ => is_word(&joined).then_some(joined),
    }
}

/// The word of which `word` is an evasive spelling.
fn mended(word: &str) -> Option<String> {
    if is_known(word) {
        return exchanged(word);
    }
    unrepeated(word).or_else(|| exchanged(word)).or_else(|| backwards(word)).or_else(|| spaced(word))
}
