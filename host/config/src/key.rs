//! A key of infer.toml: its type, range, default, reload rule and documentation. The macro
//! [`section`] declares the keys of a section and the structs that hold them.

use std::fmt;
use std::ops::{Bound, RangeInclusive};

use toml::Spanned;

/// A key of infer.toml.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: DefaultValue,
    pub(crate) reload: Reload,
    /// Lines of Markdown.
    #[cfg(test)]
    pub(crate) documentation: &'static [&'static str],
}

/// Type of a key, and the range of a number. [`types`] has the Rust type of each.
pub(crate) enum Kind {
    /// IP address or name, with a port.
    Address,
    Path,
    Text,
    Boolean,
    /// Non-negative number without a limit.
    Integer,
    Count(RangeInclusive<u64>),
    Bytes(RangeInclusive<u64>),
    Milliseconds(RangeInclusive<u64>),
    Real(Bound<f64>, Bound<f64>),
    /// List of strings.
    List,
    /// Values by names that the configuration chooses.
    Map,
    /// A section of its own.
    Table,
    /// A list of sections.
    Tables,
}

/// Value of a key that the configuration leaves out. [`presence`] has the Rust type of each.
pub(crate) enum DefaultValue {
    /// No default: the key must be present.
    Required,
    /// No default: the feature is off.
    Unset,
    Number(u64),
    Real(f64),
    Flag(bool),
    Text(&'static str),
    /// Words for a default that depends on another key, the model or the machine.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the documentation reads the words"))]
    Derived(&'static str),
}

/// Effect of a reload on a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// A reload applies the new value.
    Live,
    /// A reload that changes the value is rejected: only a restart applies it.
    Fixed,
}

/// A key with its value in the configuration.
pub(crate) struct Entry<'a, T> {
    pub(crate) key: &'static Key,
    pub(crate) value: &'a T,
}

/// Listed values of a key, for comparisons: the part of the path behind the key, which is empty for
/// a key with one value, and the value.
pub(crate) type Values = Vec<(String, String)>;

/// The Rust type of each [`Kind`].
pub(crate) mod types {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use toml::Spanned;

    pub(crate) type Address = Spanned<String>;
    pub(crate) type Path = Spanned<PathBuf>;
    pub(crate) type Text = Spanned<String>;
    pub(crate) type Boolean = bool;
    pub(crate) type Integer = u64;
    pub(crate) type Count = Spanned<u64>;
    pub(crate) type Bytes = Spanned<u64>;
    pub(crate) type Milliseconds = Spanned<u64>;
    pub(crate) type Real = Spanned<f64>;
    pub(crate) type List = Vec<Spanned<String>>;
    pub(crate) type Map<T> = BTreeMap<String, T>;
    pub(crate) type Table<T> = T;
    pub(crate) type Tables<T> = Vec<T>;
}

/// The Rust type of a key's field, by its [`DefaultValue`]: only required keys are always present.
pub(crate) mod presence {
    pub(crate) type Required<T> = T;
    pub(crate) type Unset<T> = Option<T>;
    pub(crate) type Number<T> = Option<T>;
    pub(crate) type Real<T> = Option<T>;
    pub(crate) type Flag<T> = Option<T>;
    pub(crate) type Text<T> = Option<T>;
    pub(crate) type Derived<T> = Option<T>;
}

/// Declares a section: the struct that serde parses, with a method per key that returns its
/// [`Entry`]; the struct of its listed [`Values`]; and the table `KEYS`. An entry is
/// `name: Kind(range) = default, reload;` under its documentation.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $(#[derive($derive:ident)])?
        $section:ident, $values:ident {
            $(
                $(#[doc = $line:literal])+
                $key:ident: $kind:ident $(<$item:ty>)? $(($($range:expr),+))?
                    = $default:ident $(($value:expr))?, $reload:ident;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, $($derive,)? serde::Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a table")]
        pub(crate) struct $section {
            $($(#[doc = $line])+ pub(crate) $key: presence::$default<types::$kind $(<$item>)?>,)+
        }

        #[doc = concat!("Listed values of [`", stringify!($section), "`].")]
        #[allow(dead_code, reason = "self-tests are listed as a whole")]
        pub(crate) struct $values {
            $(pub(crate) $key: Values,)+
        }

        #[allow(dead_code, reason = "many keys need only their value")]
        impl $section {
            pub(crate) const KEYS: &'static [Key] = &[$(Key {
                name: stringify!($key),
                kind: Kind::$kind $(($($range),+))?,
                default: DefaultValue::$default $(($value))?,
                reload: Reload::$reload,
                #[cfg(test)]
                documentation: &[$($line),+],
            }),+];

            $(pub(crate) fn $key(&self) -> Entry<'_, presence::$default<types::$kind $(<$item>)?>> {
                let key = Self::KEYS.iter().find(|key| key.name == stringify!($key));
                Entry { key: key.expect("`KEYS` has every field"), value: &self.$key }
            })+
        }

        #[allow(dead_code, reason = "self-tests are listed as a whole")]
        impl $values {
            pub(crate) fn list(self) -> Values {
                $crate::key::join([$((stringify!($key), self.$key)),+])
            }
        }
    };
}
pub(crate) use section;

/// Puts the name of each key before the paths of its values.
pub(crate) fn join<const N: usize>(keys: [(&str, Values); N]) -> Values {
    let full = |key: &str, path: &str| if path.is_empty() { key.to_owned() } else { format!("{key}.{path}") };
    let of_key = |(key, values): (&str, Values)| -> Values {
        values.into_iter().map(|(path, value)| (full(key, &path), value)).collect()
    };
    keys.into_iter().flat_map(of_key).collect()
}

impl Key {
    /// Returns the range of a whole number with a limit.
    pub(crate) fn range(&self) -> Option<RangeInclusive<u64>> {
        match &self.kind {
            Kind::Count(range) | Kind::Bytes(range) | Kind::Milliseconds(range) => Some(range.clone()),
            _ => None,
        }
    }

    /// Returns the default of a whole number.
    ///
    /// # Panics
    ///
    /// If the table has none.
    pub(crate) fn number(&self) -> u64 {
        match self.default {
            DefaultValue::Number(number) => number,
            _ => panic!("`{}` has no number as its default", self.name),
        }
    }

    /// Returns the default of a real number.
    ///
    /// # Panics
    ///
    /// If the table has none.
    pub(crate) fn real(&self) -> f64 {
        match self.default {
            DefaultValue::Real(number) => number,
            _ => panic!("`{}` has no real number as its default", self.name),
        }
    }
}

impl Entry<'_, Option<bool>> {
    /// Returns the configured value, or the default.
    pub(crate) fn flag(&self) -> bool {
        self.value.unwrap_or(matches!(self.key.default, DefaultValue::Flag(true)))
    }
}

impl Entry<'_, Option<Spanned<String>>> {
    /// Returns the configured text, or the default.
    pub(crate) fn text(&self) -> &str {
        match (self.value, &self.key.default) {
            (Some(text), _) => text.get_ref(),
            (None, DefaultValue::Text(text)) => text,
            (None, _) => "",
        }
    }
}

/// A range as a message names it: `1 to 64`; `None` if every value of the type is permitted.
pub(crate) struct RangeText<'a>(pub(crate) &'a Kind);

impl fmt::Display for RangeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Count(range) | Kind::Bytes(range) | Kind::Milliseconds(range) => {
                write!(f, "{} to {}", range.start(), range.end())
            }
            Kind::Real(Bound::Included(min), Bound::Included(max)) => write!(f, "{min} to {max}"),
            Kind::Real(Bound::Excluded(min), Bound::Included(max)) => {
                write!(f, "more than {min}, at most {max}")
            }
            Kind::Real(Bound::Excluded(min), _) => write!(f, "more than {min}, and finite"),
            _ => Ok(()),
        }
    }
}
