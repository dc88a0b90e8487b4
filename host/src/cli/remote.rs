//! `boxyard ps` and `boxyard rm`: sandboxes of a running server.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use super::{Failure, output};
use crate::exit;

/// How long a server may take to answer: a deletion waits for its backend.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which server is asked, and with which key.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    /// The server.
    #[arg(
        long,
        env = "BOXYARD_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    url: String,
    /// The API key, where the server asks for one.
    #[arg(
        long,
        env = "BOXYARD_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {
    #[command(flatten)]
    remote: Remote,
    /// Only those with this status.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only those of this sandbox type.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    sandbox_type: Option<String>,
    /// Only those with this label.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Option<String>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    #[command(flatten)]
    remote: Remote,
    /// The sandboxes.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// What `ps` shows of a sandbox.
#[derive(Deserialize)]
struct Row {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "type")]
    sandbox_type: String,
    status: String,
    created_at: String,
}

impl Remote {
    /// Asks the server; its answer, or what it says went wrong.
    fn ask(&self, method: &str, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let failed = |error: ureq::Error| {
            let url = &self.url;
            let message = format!(
                "cannot ask the server at {url}: {error}; is `boxyard serve` running there? Name another with --url"
            );
            Failure::new(exit::FAILURE, anyhow::anyhow!(message))
        };
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .allow_non_standard_methods(true);
        let agent = Agent::from(config.build());
        let uri = format!("{}{path}", self.url.trim_end_matches('/'));
        let response = match method {
            "DELETE" => self.signed(agent.delete(&uri)).call(),
            _ => self
                .signed(agent.get(&uri))
                .query_pairs(query.iter().copied())
                .call(),
        };
        let response = response.map_err(failed)?;
        answer(response, &self.url)
    }

    fn signed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.api_key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }
}

fn answer(mut response: Response<Body>, url: &str) -> Result<Value, Failure> {
    let status = response.status();
    let document = response.body_mut().read_json::<Value>();
    let document = document.map_err(|error| {
        let message =
            format!("{url} answered {status} and no JSON: {error}; is it a Boxyard server?");
        Failure::new(exit::FAILURE, anyhow::anyhow!(message))
    })?;
    if status.is_success() {
        return Ok(document);
    }
    let detail = match document.get("detail") {
        Some(Value::String(detail)) => detail.clone(),
        Some(detail) => detail.to_string(),
        None => document.to_string(),
    };
    let message = match status.as_u16() {
        401 => format!("{url} asks for an API key: give it with --api-key or BOXYARD_API_KEY"),
        _ => format!("{url} answered {status}: {detail}"),
    };
    Err(Failure::new(exit::FAILURE, anyhow::anyhow!(message)))
}

pub(super) fn ps(args: &PsArgs) -> Result<u8, Failure> {
    let query = [
        ("status", &args.status),
        ("type", &args.sandbox_type),
        ("label", &args.label),
    ];
    let query: Vec<_> = query
        .iter()
        .filter_map(|(key, value)| Some((*key, value.as_deref()?)))
        .collect();
    let document = args.remote.ask("GET", "/v1/sandboxes", &query)?;
    if args.json {
        output::json(&document)?;
        return Ok(exit::SUCCESS);
    }
    let sandboxes = document.get("sandboxes").cloned().unwrap_or_default();
    let rows: Vec<Row> =
        serde_json::from_value(sandboxes).map_err(|error| Failure::new(exit::FAILURE, error))?;
    let rows = rows.into_iter().map(|row| {
        vec![
            row.id,
            row.sandbox_type,
            row.status,
            row.created_at,
            row.name,
        ]
    });
    output::table(&["ID", "TYPE", "STATUS", "CREATED", "NAME"], rows.collect())?;
    Ok(exit::SUCCESS)
}

pub(super) fn rm(args: &RmArgs) -> Result<u8, Failure> {
    let mut code = exit::SUCCESS;
    for id in &args.ids {
        // Whatever was typed, it names a sandbox and is no other path and no query.
        let name = utf8_percent_encode(id, NON_ALPHANUMERIC);
        match args
            .remote
            .ask("DELETE", &format!("/v1/sandboxes/{name}"), &[])
        {
            Ok(_) => output::line(id)?,
            Err(failure) => {
                output::complain(&failure.error);
                code = failure.code;
            }
        }
    }
    Ok(code)
}
