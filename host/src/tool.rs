//! Tools: named, schema-described actions that run against a sandbox.

mod builtin;
mod code;
mod file;
mod notebook;
mod python;
mod scratch;
mod shell;

use std::{sync::Arc, time::Duration};

use boxyard_plugin_api::{Error, ErrorCode, ToolDescriptor, abi::ToolObject};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    backend::{Seam, Terms},
    sandbox::{Activity, Sandbox},
    schema::{Schema, SchemaError},
};

pub(crate) use builtin::Builtin;
pub use code::Language;
pub(crate) use notebook::Notebook;

/// One tool, of a plugin or of the host.
#[derive(Debug)]
pub struct Tool {
    descriptor: ToolDescriptor,
    schema: Schema,
    code: Code,
}

/// What runs when a tool is called.
#[derive(Debug)]
enum Code {
    Plugin { object: ToolObject, seam: Arc<Seam> },
    Builtin(Builtin),
}

/// Why a tool did not run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ToolError {
    /// No tool has the name.
    #[error("there is no tool `{name}`{}: there {}", near.as_ref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default(), known_tools(known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The most likely meaning.
        near: Option<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// The tool is for other sandbox types.
    #[error("tool `{name}` cannot run in `{sandbox_type}`: it is for {}", expected.join(", "))]
    WrongType {
        /// The tool.
        name: String,
        /// Where it was asked to run.
        sandbox_type: String,
        /// Where it can run.
        expected: Vec<String>,
    },
    /// The parameters do not fit.
    #[error(transparent)]
    Params(#[from] SchemaError),
    /// The sandbox takes no calls now.
    #[error(transparent)]
    Sandbox(#[from] Error),
}

fn known_tools(known: &[String]) -> String {
    if known.is_empty() {
        "are none".into()
    } else {
        format!("are {}", known.join(", "))
    }
}

/// How a tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolStatus {
    /// It answered.
    Success,
    /// It failed.
    Error,
    /// It ran into its deadline.
    Timeout,
    /// Its caller gave up.
    Cancelled,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolResult {
    /// The tool's name.
    pub tool: String,
    /// How it ended.
    pub status: ToolStatus,
    /// Its answer; `null` where a plugin's tool failed.
    pub output: Value,
    /// Why it failed; what a command wrote to standard error, also where it succeeded.
    pub error: Option<String>,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
}

impl Tool {
    pub(crate) fn new(descriptor: ToolDescriptor, object: ToolObject, seam: Arc<Seam>) -> Self {
        let schema = Schema::new(descriptor.parameters.clone());
        Self {
            descriptor,
            schema,
            code: Code::Plugin { object, seam },
        }
    }

    pub(crate) fn builtin(builtin: Builtin) -> Self {
        let descriptor = builtin.descriptor();
        let schema = Schema::new(builtin::accepted(&descriptor.parameters));
        Self {
            descriptor,
            schema,
            code: Code::Builtin(builtin),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// Returns the name of the plugin that provides it; `None` for one of the host's own.
    pub fn plugin(&self) -> Option<&str> {
        match &self.code {
            Code::Plugin { seam, .. } => Some(seam.plugin()),
            Code::Builtin(_) => None,
        }
    }

    /// Returns what its plugin says of it.
    pub fn descriptor(&self) -> &ToolDescriptor {
        &self.descriptor
    }

    /// Returns whether it can run in a sandbox type.
    pub fn runs_in(&self, sandbox_type: &str) -> bool {
        let types = &self.descriptor.sandbox_types;
        types.is_empty() || types.iter().any(|one| one == sandbox_type)
    }

    /// Checks parameters and fills in their defaults.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], naming every parameter that is wrong.
    pub fn check_params(&self, params: Value) -> Result<Value, SchemaError> {
        self.schema
            .check(&format!("parameters of `{}`", self.name()), params)
    }

    /// Runs it against a sandbox with parameters that were checked, as an activity of that.
    pub(crate) async fn execute(
        &self,
        params: Value,
        sandbox: &Arc<Sandbox>,
        terms: Terms<'_>,
        activity: Activity,
    ) -> ToolResult {
        let began = tokio::time::Instant::now();
        let (status, output, error) = match &self.code {
            Code::Plugin { object, seam } => {
                let facade = sandbox.facade();
                let call = seam.call(terms, |call| {
                    activity.during(object.execute(&params, facade, call))
                });
                match call.await {
                    Ok(output) => (ToolStatus::Success, output, None),
                    Err(error) => (status_of(&error), Value::Null, Some(error.to_string())),
                }
            }
            Code::Builtin(builtin) => {
                let _activity = activity;
                let limit = terms.timeout.unwrap_or(Duration::MAX);
                match timeout(limit, builtin.execute(params, sandbox)).await {
                    Ok(outcome) => (outcome.status, outcome.output.into(), outcome.error),
                    Err(_) => {
                        let message = format!(
                            "the tool ran into its deadline of {}",
                            humantime::format_duration(limit)
                        );
                        (ToolStatus::Timeout, Value::Null, Some(message))
                    }
                }
            }
        };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        ToolResult {
            tool: self.name().into(),
            status,
            output,
            error,
            duration_ms,
        }
    }
}

fn status_of(error: &Error) -> ToolStatus {
    match error.code() {
        ErrorCode::DEADLINE_EXCEEDED => ToolStatus::Timeout,
        ErrorCode::CANCELLED => ToolStatus::Cancelled,
        _ => ToolStatus::Error,
    }
}
