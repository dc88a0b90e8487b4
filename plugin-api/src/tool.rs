//! One tool: a named, schema-described action run against a sandbox.

use std::future::Future;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Call, PluginContext, Result, ToolContext};

/// A named, schema-described action run against a sandbox.
///
/// One value of it lives as long as the plugin. Write `execute` as an `async fn`.
pub trait Tool: Sized + Send + Sync + 'static {
    /// The name, unique in a host: `shell_executor`.
    const NAME: &'static str;
    /// One sentence for people and models.
    const DESCRIPTION: &'static str;
    /// The sandbox types it can run in; empty means any.
    const SANDBOX_TYPES: &'static [&'static str] = &[];
    /// Its parameters. The host checks them against their JSON Schema; unknown keys are refused.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// What it answers.
    type Output: Serialize + Send + 'static;

    /// Makes the tool, once, when the plugin is initialised. Quick: no network, no waiting.
    ///
    /// # Errors
    ///
    /// The whole plugin is quarantined with this message.
    fn open(plugin: &PluginContext) -> Result<Self>;

    /// Runs the tool against a sandbox.
    ///
    /// # Errors
    ///
    /// The tool's result is an error with this message.
    fn execute(
        &self,
        params: Self::Params,
        sandbox: ToolContext,
        call: &Call,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}
