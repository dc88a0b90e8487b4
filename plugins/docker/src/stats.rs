//! What a container uses, as the engine measures it.

use bollard::{Docker, query_parameters::StatsOptionsBuilder};
use boxyard_plugin_api::{Stats, prelude::*};
use futures_util::StreamExt;

use crate::engine::Doing;

/// Asks the engine once.
///
/// # Errors
///
/// What the engine says.
pub(crate) async fn measure(docker: &Docker, container: &str) -> Result<Stats> {
    let options = StatsOptionsBuilder::new()
        .stream(false)
        .one_shot(true)
        .build();
    let mut answers = docker.stats(container, Some(options));
    let answer = answers.next().await;
    let answer = answer.ok_or_else(|| Error::unavailable("the engine measured nothing"))?;
    let answer = answer.doing("measuring the container")?;
    let cpu = answer.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
    let memory = answer.memory_stats.unwrap_or_default();
    let networks = answer.networks.unwrap_or_default();
    let sum = |number: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        let numbers = networks.values().filter_map(number);
        (!networks.is_empty()).then(|| numbers.fold(0, u64::saturating_add))
    };
    let blocks = answer
        .blkio_stats
        .and_then(|it| it.io_service_bytes_recursive);
    let blocks = |operation: &str| {
        let entries = blocks.iter().flatten();
        let entries = entries.filter(|entry| {
            entry
                .op
                .as_deref()
                .is_some_and(|op| op.eq_ignore_ascii_case(operation))
        });
        let bytes = entries.filter_map(|entry| entry.value);
        blocks.is_some().then(|| bytes.fold(0, u64::saturating_add))
    };
    let mut stats = Stats::default();
    // The engine counts nanoseconds.
    stats.cpu_us = cpu.map(|nanoseconds| nanoseconds / 1000);
    stats.memory_bytes = memory.usage;
    stats.memory_limit_bytes = memory.limit;
    stats.processes = answer.pids_stats.and_then(|pids| pids.current);
    stats.network_received_bytes = sum(|network| network.rx_bytes);
    stats.network_sent_bytes = sum(|network| network.tx_bytes);
    stats.disk_read_bytes = blocks("read");
    stats.disk_written_bytes = blocks("write");
    Ok(stats)
}
