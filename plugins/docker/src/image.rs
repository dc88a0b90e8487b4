//! The images that the engine has.

use std::{collections::BTreeMap, sync::Arc};

use boxyard_plugin_api::prelude::*;

use crate::{
    config::{Platform, PullPolicy},
    engine::{Connection, Doing, Environment},
};

/// The images of an engine.
#[derive(Debug)]
pub(crate) struct Images;

/// How far a pull is.
#[derive(Debug, Serialize)]
pub(crate) struct Progress {}

/// What an image says of itself.
#[derive(Debug)]
pub(crate) struct ImageFacts {
    pub(crate) id: String,
    pub(crate) user: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) architecture: String,
}

impl Images {
    pub(crate) fn new(_environment: Environment) -> Self {
        Self
    }

    /// Finds an image that the engine has.
    pub(crate) async fn ensure(
        &self,
        connection: &Connection,
        image: &str,
        _platform: Option<&Platform>,
        _policy: PullPolicy,
        _progress: impl Fn(Progress),
    ) -> Result<Arc<ImageFacts>> {
        let found = connection.docker.inspect_image(image).await;
        let found = found.doing(format_args!("looking for the image `{image}`"))?;
        let config = found.config.unwrap_or_default();
        let env = config.env.unwrap_or_default().into_iter();
        let env = env.filter_map(|entry| {
            let (name, value) = entry.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(Arc::new(ImageFacts {
            id: found.id.unwrap_or_default(),
            user: config.user,
            env: env.collect(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            architecture: found.architecture.unwrap_or_default(),
        }))
    }
}
