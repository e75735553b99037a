//! An axis of a shape: fixed, or varying up to a limit.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// An axis of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// A constant size of at least 1.
    Fixed(usize),
    /// A size that varies from tensor to tensor.
    Dynamic {
        /// Name of the axis, for humans.
        name: String,
        /// Maximum size according to the card. Files do not declare one.
        max: Option<usize>,
    },
}

impl Axis {
    /// A varying axis without a limit of its own.
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

/// Accepts a size, a name or a table. Its messages are more precise than those of an untagged enum.
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

/// Checks a name. Guests read shapes as text, such as `N,3,224,224`, so a name must be neither a
/// number nor contain a comma.
fn named<E: de::Error>(name: &str) -> Result<String, E> {
    let is_size = name.trim().parse::<u64>().is_ok();
    if name.trim().is_empty() || is_size || name.contains(|c: char| c == ',' || c.is_control()) {
        return Err(E::invalid_value(de::Unexpected::Str(name), &AxisVisitor));
    }
    Ok(name.to_owned())
}
