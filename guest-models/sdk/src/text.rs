//! Untrusted text as a reader sees it: invisible characters and compatibility forms.

use unicode_normalization::UnicodeNormalization as _;
pub use unicode_normalization::char::is_combining_mark as is_mark;

/// Returns true for invisible characters: the property `Default_Ignorable_Code_Point` (Unicode
/// Standard Annex #44) and the marks of interlinear annotation. They include zero-width characters,
/// soft hyphens, byte order marks, variation selectors, tags and direction controls; blanks and
/// control characters are not among them.
pub fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The visible characters of `text`, with compatibility forms folded (NFKC, Unicode Standard Annex
/// #15).
pub fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().filter(|&character| !is_invisible(character)).nfkc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_forms_and_invisible_characters_are_folded() {
        for (text, expected) in [
            ("plain ASCII, 'quoted' \"twice\"\n", "plain ASCII, 'quoted' \"twice\"\n"),
            ("ｉｄｉｏｔ", "idiot"),
            ("𝐢𝒹𝔦𝖔𝚝", "idiot"),
            ("ⓘⓓⓘⓞⓣ", "idiot"),
            ("ﬀ ﬁ ﬆ", "ff fi st"),
            ("wait…", "wait..."),
            ("a\u{a0}b\u{3000}c", "a b c"),
            ("cafe\u{301}", "café"),
            ("id\u{200b}i\u{ad}o\u{2060}t\u{fe0f}\u{feff}", "idiot"),
            ("\u{202e}idiot\u{202c}\u{e0041}", "idiot"),
        ] {
            assert_eq!(folded(text).collect::<String>(), expected, "{text:?}");
        }
    }

    #[test]
    fn blanks_and_letters_are_visible() {
        for character in "aé日א\u{5d0}\u{301} \u{a0}\u{2028}\u{85}\n\u{3000}😀’".chars() {
            assert!(!is_invisible(character), "{character:?}");
        }
    }
}
