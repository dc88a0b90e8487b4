//! How far a sandbox is: made, started, stopped, removed.

use std::mem;

use boxyard_agent::protocol::Setup;
use boxyard_plugin_api::prelude::*;

use crate::recipe::{Made, Recipe};

/// What a sandbox that was not started knows.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) setup: Setup,
    pub(crate) made: Made,
    /// For another try.
    pub(crate) recipe: Recipe,
    /// What runs beside the commands.
    pub(crate) own_command: Option<Vec<String>>,
}

/// How far a sandbox is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its container is there, and was not started.
    Made(Box<Beginning>),
    /// Its container was started; where that failed or was broken off, the engine may have gone
    /// on with it.
    Started,
    /// Nothing runs in it any more.
    Stopped,
    /// Nothing is left of it, but what is to stay.
    Removed,
}

impl Stage {
    /// Takes what it is started from, once.
    ///
    /// # Errors
    ///
    /// It is further than that.
    pub(super) fn start(&mut self) -> Result<Box<Beginning>> {
        let (further, unchanged) = match mem::replace(self, Self::Started) {
            Self::Made(beginning) => return Ok(beginning),
            Self::Started => ("started", Self::Started),
            Self::Stopped => ("stopped", Self::Stopped),
            Self::Removed => ("removed", Self::Removed),
        };
        *self = unchanged;
        Err(Error::failed_precondition(format_args!(
            "the sandbox cannot be started: it was {further} before"
        )))
    }

    /// Notes that nothing runs in it; again, and after its removal, is no error.
    pub(super) fn stop(&mut self) {
        if !matches!(self, Self::Removed) {
            *self = Self::Stopped;
        }
    }

    /// Notes that nothing is left of it.
    pub(super) fn remove(&mut self) {
        *self = Self::Removed;
    }
}
