//! Ports of the container, and where they are published.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// A port of the container and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerPort {
    port: u16,
    protocol: &'static str,
}

impl ContainerPort {
    fn read(value: Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or("");
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = ["tcp", "udp", "sctp"]
            .into_iter()
            .find(|known| *known == protocol);
        match (port.parse(), protocol) {
            (Ok(port), Some(protocol)) if port != 0 => Ok(Self { port, protocol }),
            _ => Err(format!(
                "expected a port from 1 to 65535, with `/udp` or `/sctp` if it is not TCP's, found {}",
                shown(&value)
            )),
        }
    }
}

/// As engines spell it.
impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

read_by!(ContainerPort);

impl JsonSchema for ContainerPort {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ContainerPort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,4}(/(tcp|udp|sctp))?$" })
    }
}

/// An address and port of the engine's machine; port 0 for any that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Where one port of the container is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bindings(Vec<Publish>);

impl Bindings {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Publish> {
        self.0.iter()
    }

    fn read(value: Value) -> Result<Self, String> {
        // `[address, port]` is one place, any other list several.
        let all = match &value {
            Value::Array(items) => match Publish::read(&value) {
                Some(pair) => Some(vec![pair]),
                None => items.iter().map(Publish::read).collect(),
            },
            one => Publish::read(one).map(|one| vec![one]),
        };
        all.filter(|all| !all.is_empty()).map(Self).ok_or_else(|| {
            format!(
                "expected a port, an `address:port`, an `[address, port]`, a list of those, or \
                     null, found {}",
                shown(&value)
            )
        })
    }
}

impl Publish {
    fn read(value: &Value) -> Option<Self> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (address, port) = match value {
            Value::Null => (loopback, 0),
            Value::Number(port) => (loopback, port.as_u64()?.try_into().ok()?),
            Value::String(text) => match text.rsplit_once(':') {
                Some((address, port)) => (parse_address(address)?, parse_port(port)?),
                None => (loopback, parse_port(text)?),
            },
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(address), port] if !port.is_array() => {
                    let address = parse_address(address)?;
                    (address, Self::read(port).filter(|_| !has_colon(port))?.port)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { address, port })
    }
}

fn has_colon(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(':'))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match text {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => bare.unwrap_or(text).parse().ok(),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() {
        Some(0)
    } else {
        text.parse().ok()
    }
}

read_by!(Bindings);

impl JsonSchema for Bindings {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bindings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["null", "integer", "string", "array"],
            "minimum": 0,
            "maximum": 65535,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_to_loopback_unless_told() {
        for (written, expected) in [
            (json!(null), "127.0.0.1:0"),
            (json!(8080), "127.0.0.1:8080"),
            (json!("8080"), "127.0.0.1:8080"),
            (json!("0.0.0.0:80"), "0.0.0.0:80"),
            (json!("localhost:80"), "127.0.0.1:80"),
            (json!("[::1]:80"), "[::1]:80"),
            (json!("10.0.0.1:"), "10.0.0.1:0"),
            (json!(["10.0.0.1", 80]), "10.0.0.1:80"),
            (json!(["10.0.0.1", "80"]), "10.0.0.1:80"),
            (json!(["10.0.0.1", null]), "10.0.0.1:0"),
            (json!([80, "81"]), "127.0.0.1:80 127.0.0.1:81"),
            (json!([["10.0.0.1", 80], 81]), "10.0.0.1:80 127.0.0.1:81"),
            (json!(["80", "81"]), "127.0.0.1:80 127.0.0.1:81"),
        ] {
            let found: Bindings = serde_json::from_value(written.clone()).unwrap();
            let found: Vec<String> = found
                .iter()
                .map(|place| std::net::SocketAddr::new(place.address, place.port).to_string())
                .collect();
            assert_eq!(found.join(" "), expected, "{written}");
        }
        for wrong in [
            json!(65536),
            json!(-1),
            json!("http"),
            json!("there:80"),
            json!([]),
            json!({}),
            json!(["10.0.0.1", 70000]),
            json!(true),
        ] {
            let error = serde_json::from_value::<Bindings>(wrong.clone()).unwrap_err();
            assert!(
                error.to_string().contains("address:port"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn a_port_of_the_container_has_a_protocol() {
        for (written, expected) in [("80", "80/tcp"), ("53/udp", "53/udp"), ("9/tcp", "9/tcp")] {
            let port: ContainerPort = serde_json::from_value(json!(written)).unwrap();
            assert_eq!(port.to_string(), expected);
        }
        for wrong in ["0", "70000", "80/http", "", "a", "80-90"] {
            assert!(serde_json::from_value::<ContainerPort>(json!(wrong)).is_err());
        }
    }
}
