//! Amounts of bytes, as people write them.

use std::{borrow::Cow, fmt};

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

const PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?([bB]|[kKmMgGtT]([iI]?[bB])?)?$";

/// An amount of bytes: a number, or a string such as `512m`. Units are powers of 1024, as docker
/// takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

impl Size {
    pub(crate) const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    pub(crate) const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// Returns the number of bytes, as engines count them.
    pub(crate) fn bytes(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    fn read(value: Value) -> Result<Self, String> {
        let read = match &value {
            Value::Number(number) => number.as_u64().map(Self),
            Value::String(text) => Self::parse(text),
            _ => None,
        };
        read.ok_or_else(|| {
            format!(
                "expected a size such as `512m` or `4g`, or a number of bytes, found {}",
                shown(&value)
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
        let shift = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return None;
        }
        let unit = 1_u64 << shift;
        let whole: u64 = whole.parse().ok()?;
        let places = u32::try_from(part.len()).ok()?;
        let part = part.parse::<u64>().ok()?.checked_mul(unit)? / 10_u64.checked_pow(places)?;
        let bytes = whole.checked_mul(unit)?.checked_add(part)?;
        i64::try_from(bytes).ok().map(|_| Self(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

read_by!(Size);

/// As it is shown, so that defaults are.
impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": PATTERN,
            "minimum": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (written, bytes) in [
            (json!(4096), 4096),
            (json!("4096"), 4096),
            (json!("0"), 0),
            (json!("7b"), 7),
            (json!("512m"), 512 << 20),
            (json!("4G"), 4 << 30),
            (json!("4gb"), 4 << 30),
            (json!("4 GiB"), 4 << 30),
            (json!("1.5g"), 3 << 29),
            (json!("2t"), 2 << 40),
        ] {
            let size: Size = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(size.bytes(), bytes, "{written}");
        }
        for wrong in [
            json!("much"),
            json!(""),
            json!("-1"),
            json!(-1),
            json!("4x"),
            json!("4  g"),
            json!("."),
            json!("1."),
            json!(1.5),
            json!("99999999999t"),
            json!(null),
        ] {
            let error = serde_json::from_value::<Size>(wrong.clone()).unwrap_err();
            assert!(error.to_string().contains("512m"), "{wrong}: {error}");
        }
        assert_eq!(Size(3 << 29).to_string(), "1536m");
        assert_eq!(Size::gib(4).to_string(), "4g");
        assert_eq!(Size(1001).to_string(), "1001");
    }
}
