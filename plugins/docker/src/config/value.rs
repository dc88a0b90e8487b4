//! Values that may be written in more than one way.

use boxyard_plugin_api::prelude::*;

/// Shows a value that is not what was expected.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// Implements `Deserialize` by a method `read(Value) -> Result<Self, String>`, whose message says
/// what was expected and found; which key it was, the caller adds.
macro_rules! read_by {
    ($type:ty) => {
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let value = ::serde::Deserialize::deserialize(deserializer)?;
                <$type>::read(value).map_err(::serde::de::Error::custom)
            }
        }
    };
}

pub(super) use read_by;
