//! One axis of a tensor: fixed, or varying up to a bound.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// The most rows of the batch axis in one job. A computation that has begun is not interrupted, so
/// this bounds how long one caller holds a session, and the memory that it takes there.
pub(crate) const MAX_ROWS: usize = 128;

/// The largest size of any other axis that varies, where the card gives no `max`.
pub(crate) const DEFAULT_MAX: usize = 1_024;

/// The largest product of one input's varying axes, where one of them has no `max` in the card.
pub(crate) const DEFAULT_MAX_PRODUCT: usize = 65_536;

/// One axis of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Always this size, at least 1.
    Fixed(usize),
    /// As large as the tensor that is given.
    Dynamic {
        /// For people.
        name: String,
        /// The largest size that a card allows; a file never says.
        max: Option<usize>,
    },
}

impl Axis {
    /// An axis that varies, without a bound of its own.
    pub(crate) fn varying(name: impl Into<String>) -> Self {
        Axis::Dynamic { name: name.into(), max: None }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Fixed(size) => size.fmt(f),
            Axis::Dynamic { name, .. } => f.pad(name),
        }
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AxisVisitor)
    }
}

/// Distinguishes a size, a name and a table, with a better message than an untagged enum has.
struct AxisVisitor;

impl<'de> Visitor<'de> for AxisVisitor {
    type Value = Axis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an axis: a size of at least 1, a name in quotes for one that varies, or { name = \"T\", max = 512 }",
        )
    }

    fn visit_i64<E: de::Error>(self, size: i64) -> Result<Axis, E> {
        match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(Axis::Fixed(size)),
            _ => Err(E::invalid_value(de::Unexpected::Signed(size), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Axis, E> {
        named(name).map(Axis::varying)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Axis, A::Error> {
        let (mut name, mut max) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(named::<A::Error>(&map.next_value::<String>()?)?),
                "max" => max = Some(map.next_value::<u32>()?),
                _ => return Err(de::Error::unknown_field(&key, &["name", "max"])),
            }
        }
        let name = name.ok_or_else(|| de::Error::missing_field("name"))?;
        match max.map(|max| max as usize) {
            Some(0) => Err(de::Error::invalid_value(de::Unexpected::Unsigned(0), &"a `max` of at least 1")),
            max => Ok(Axis::Dynamic { name, max }),
        }
    }
}

/// A name that guests cannot take for a size or for two axes: they read a shape as text, such as
/// `N,3,224,224`.
fn named<E: de::Error>(name: &str) -> Result<String, E> {
    let is_size = name.trim().parse::<u64>().is_ok();
    if name.trim().is_empty() || is_size || name.contains(|c: char| c == ',' || c.is_control()) {
        return Err(E::invalid_value(de::Unexpected::Str(name), &AxisVisitor));
    }
    Ok(name.to_owned())
}
