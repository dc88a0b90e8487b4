//! `boxyard types`.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Failure, output, start_host};
use crate::{config::Config, exit};

#[derive(Debug, clap::Args)]
pub(super) struct TypesArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TypesArgs, config: Config) -> Result<u8, Failure> {
    let host = start_host(config, exit::FAILURE).await?;
    let registry = host.registry();
    let probed = registry
        .types()
        .map(|one| async move { (one, one.probe().await) });
    let probed = join_all(probed).await;
    if args.json {
        let types: Vec<Value> = probed
            .iter()
            .map(|(one, health)| {
                let descriptor = one.descriptor();
                json!({
                    "name": descriptor.name,
                    "description": descriptor.description,
                    "plugin": one.plugin(),
                    "isolation": descriptor.isolation,
                    "capabilities": descriptor.capabilities,
                    "health": health,
                    "config_schema": descriptor.config_schema,
                })
            })
            .collect();
        output::json(&json!({ "types": types }))?;
    } else if probed.is_empty() {
        output::line("no sandbox types; see `boxyard plugins list`")?;
    } else {
        let rows = probed.iter().map(|(one, health)| {
            let descriptor = one.descriptor();
            vec![
                descriptor.name.clone(),
                one.plugin().to_owned(),
                descriptor.isolation.to_string(),
                serde_json::to_value(health.status)
                    .ok()
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or("-")
                    .to_owned(),
                descriptor.capabilities.join(", "),
            ]
        });
        output::table(
            &["TYPE", "PLUGIN", "ISOLATION", "HEALTH", "CAPABILITIES"],
            rows.collect(),
        )?;
        for (one, health) in probed
            .iter()
            .filter(|(_, health)| !health.message.is_empty())
        {
            output::line(format_args!("\n{}: {}", one.name(), health.message))?;
        }
    }
    host.shutdown().await;
    Ok(exit::SUCCESS)
}
