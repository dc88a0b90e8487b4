//! What is said of a container that runs.

use std::collections::BTreeMap;

use bollard::models::ContainerInspectResponse;
use boxyard_plugin_api::prelude::*;
use serde_json::Map;

/// What is worth knowing of a container that runs.
pub(super) fn described(container: &ContainerInspectResponse) -> Map<String, Value> {
    let state = container.state.as_ref();
    let networks = container
        .network_settings
        .as_ref()
        .and_then(|it| it.networks.as_ref());
    let addresses: BTreeMap<_, _> = networks
        .into_iter()
        .flatten()
        .filter_map(|(name, network)| Some((name.clone(), network.ip_address.clone()?)))
        .filter(|(_, address)| !address.is_empty())
        .collect();
    let host = container.host_config.as_ref();
    let config = container.config.as_ref();
    Map::from_iter([
        ("container_id".into(), json!(container.id)),
        (
            "image".into(),
            json!(config.and_then(|config| config.image.clone())),
        ),
        ("image_id".into(), json!(container.image)),
        ("pid".into(), json!(state.and_then(|state| state.pid))),
        ("addresses".into(), json!(addresses)),
        (
            "ports".into(),
            json!(
                container
                    .network_settings
                    .as_ref()
                    .and_then(|it| it.ports.clone())
            ),
        ),
        (
            "limits".into(),
            json!({
                "memory_bytes": host.and_then(|host| host.memory),
                "cpu_quota_us": host.and_then(|host| host.cpu_quota),
                "cpu_period_us": host.and_then(|host| host.cpu_period),
                "pids": host.and_then(|host| host.pids_limit),
            }),
        ),
    ])
}
