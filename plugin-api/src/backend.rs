//! One sandbox type: what an author implements to make, find and sweep sandboxes.

use std::future::{Future, ready};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    Call, Capability, Error, Health, Isolation, PluginContext, Result, Sandbox, SandboxContext,
    State, SweepRequest, Swept,
};

/// One sandbox type: how to check, make, recover and sweep its sandboxes.
///
/// One value of it lives as long as the plugin. Write the async methods as `async fn`.
pub trait Backend: Sized + Send + Sync + 'static {
    /// The canonical name: kebab-case ASCII, `local-process`.
    const TYPE: &'static str;
    /// How strongly its sandboxes are kept away from the machine.
    const ISOLATION: Isolation;
    /// One sentence for people.
    const DESCRIPTION: &'static str = "";
    /// What its sandboxes can do; the rest answers `Unsupported`.
    const CAPABILITIES: &'static [Capability] = &[];
    /// The configuration of one sandbox. Its JSON Schema is shown to people and checked by
    /// the host, which fills in the defaults; unknown keys are refused. A value whose schema says
    /// `writeOnly`, however deep it is, is never shown, and neither are those of `env` and `env_vars`.
    type Config: DeserializeOwned + JsonSchema + Send + 'static;
    /// One live sandbox.
    type Sandbox: Sandbox;

    /// Makes the backend, once, when the plugin is initialised. Quick: no network, no waiting.
    ///
    /// # Errors
    ///
    /// The whole plugin is quarantined with this message. An engine that does not answer is
    /// no error here but an unhealthy [`Backend::probe`].
    fn open(plugin: &PluginContext) -> Result<Self>;

    /// Looks whether sandboxes can be made here and now.
    ///
    /// # Errors
    ///
    /// Taken as unhealthy, with this message.
    fn probe(&self, call: &Call) -> impl Future<Output = Result<Health>> + Send {
        let _ = call;
        ready(Ok(Health::healthy()))
    }

    /// Makes a sandbox that is not started yet.
    ///
    /// Save the state before the first side effect that a dead host could not undo. When the
    /// caller gives up, [`Call::cancelled`] says so; what was made by then must go.
    ///
    /// # Errors
    ///
    /// No sandbox is there, and nothing of it is left.
    fn create(
        &self,
        config: Self::Config,
        sandbox: SandboxContext,
        call: &Call,
    ) -> impl Future<Output = Result<Self::Sandbox>> + Send;

    /// Finds a sandbox again after the host restarted.
    ///
    /// # Errors
    ///
    /// It may be there or not: the host marks it as an error and leaves it to the sweep.
    fn recover(
        &self,
        state: State,
        sandbox: SandboxContext,
        call: &Call,
    ) -> impl Future<Output = Result<Recovered<Self::Sandbox>>> + Send {
        let _ = (state, sandbox, call);
        ready(Err(Error::unsupported("recovery")))
    }

    /// Removes what dead hosts left behind.
    ///
    /// # Errors
    ///
    /// Nothing is known about what is left; the host tries again later.
    fn sweep(
        &self,
        request: SweepRequest,
        call: &Call,
    ) -> impl Future<Output = Result<Swept>> + Send {
        let _ = (request, call);
        ready(Err(Error::unsupported("sweeping")))
    }
}

/// What became of a sandbox while its host was away.
#[derive(Debug)]
#[non_exhaustive]
pub enum Recovered<S> {
    /// It is there, started, and can be used.
    Running(S),
    /// It is gone, and nothing of it is left.
    Gone,
}
