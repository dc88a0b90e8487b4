//! The registry: sandbox types and tools by name.

use std::{collections::BTreeMap, sync::Arc};

use boxyard_plugin_api::{
    Capability, Health, SandboxTypeDescriptor, State, SweepRequest, Swept,
    abi::{SandboxServicesObject, SandboxTypeObject},
    canonical_type_name,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Isolation,
    backend::{Instance, Seam, Terms},
    schema::{Schema, SchemaError},
    spelling::nearest,
    tool::{Builtin, Tool, ToolError},
};

/// The sandbox types and tools that are offered now.
#[derive(Debug, Default)]
pub struct Registry {
    types: BTreeMap<String, Arc<SandboxType>>,
    tools: BTreeMap<String, Arc<Tool>>,
}

/// A name that no sandbox type has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sandbox type `{name}`{}: {}", near.as_ref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default(), known_types(known))]
pub struct UnknownType {
    /// What was asked for.
    pub name: String,
    /// The most likely meaning.
    pub near: Option<String>,
    /// What there is.
    pub known: Vec<String>,
}

fn known_types(known: &[String]) -> String {
    if known.is_empty() {
        "no plugin that provides one is loaded; see `boxyard plugins list`".into()
    } else {
        format!("there are {}", known.join(", "))
    }
}

impl Registry {
    pub(crate) fn new(
        types: impl Iterator<Item = Arc<SandboxType>>,
        tools: impl Iterator<Item = Arc<Tool>>,
    ) -> Self {
        Self {
            types: types.map(|one| (one.name().to_owned(), one)).collect(),
            tools: (Builtin::tools().chain(tools))
                .map(|one| (one.name().to_owned(), one))
                .collect(),
        }
    }

    /// Returns the sandbox types, by name.
    pub fn types(&self) -> impl Iterator<Item = &Arc<SandboxType>> {
        self.types.values()
    }

    /// Returns the tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// Returns a sandbox type; `_` in the name means `-`.
    ///
    /// # Errors
    ///
    /// [`UnknownType`], with what there is.
    pub fn sandbox_type(&self, name: &str) -> Result<&Arc<SandboxType>, UnknownType> {
        let canonical = canonical_type_name(name);
        self.types.get(&canonical).ok_or_else(|| UnknownType {
            near: nearest(&canonical, self.types.keys()).map(str::to_owned),
            known: self.types.keys().cloned().collect(),
            name: canonical,
        })
    }

    pub(crate) fn has_tool(&self, name: &str) -> bool {
        self.tools.contains_key(name)
    }

    /// Returns the tool of a name, if it can run in a sandbox type.
    ///
    /// # Errors
    ///
    /// [`ToolError::Unknown`] and [`ToolError::WrongType`].
    pub fn tool(&self, name: &str, sandbox_type: &str) -> Result<&Arc<Tool>, ToolError> {
        let tool = self.tools.get(name).ok_or_else(|| ToolError::Unknown {
            name: name.into(),
            near: nearest(name, self.tools.keys()).map(str::to_owned),
            known: self.tools.keys().cloned().collect(),
        })?;
        if tool.runs_in(sandbox_type) {
            Ok(tool)
        } else {
            Err(ToolError::WrongType {
                name: name.into(),
                sandbox_type: sandbox_type.into(),
                expected: tool.descriptor().sandbox_types.clone(),
            })
        }
    }
}

/// One sandbox type of a plugin.
#[derive(Debug)]
pub struct SandboxType {
    descriptor: SandboxTypeDescriptor,
    schema: Schema,
    /// Nothing where it only stands for one that is not loaded.
    code: Option<(SandboxTypeObject, Arc<Seam>)>,
}

impl SandboxType {
    pub(crate) fn new(
        descriptor: SandboxTypeDescriptor,
        object: SandboxTypeObject,
        seam: Arc<Seam>,
    ) -> Self {
        let schema = Schema::new(descriptor.config_schema.clone());
        Self {
            descriptor,
            schema,
            code: Some((object, seam)),
        }
    }

    /// Stands for a type that no plugin provides now, of which there are sandboxes. What is secret in
    /// their configurations nobody knows, so that all of it is.
    pub(crate) fn absent(name: &str) -> Self {
        let descriptor = json!({
            "name": name,
            "isolation": "none",
            "config_schema": { "writeOnly": true },
        });
        #[expect(
            clippy::expect_used,
            reason = "a document of our own, of the only shape there is"
        )]
        let descriptor: SandboxTypeDescriptor =
            serde_json::from_value(descriptor).expect("a type's description is one");
        Self {
            schema: Schema::new(descriptor.config_schema.clone()),
            descriptor,
            code: None,
        }
    }

    fn code(&self) -> Result<&(SandboxTypeObject, Arc<Seam>), Error> {
        self.code.as_ref().ok_or_else(|| {
            let name = self.name();
            Error::unavailable(format_args!("no plugin that provides `{name}` is loaded"))
        })
    }

    /// Returns whether its sandboxes can do something.
    pub(crate) fn can(&self, capability: Capability) -> bool {
        let mut declared = self.descriptor.capabilities.iter();
        declared.any(|name| name == capability.0)
    }

    /// Returns its canonical name.
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// Returns the name of the plugin that provides it.
    pub fn plugin(&self) -> &str {
        self.code.as_ref().map_or("", |(_, seam)| seam.plugin())
    }

    /// Returns how strongly its sandboxes are kept away from the machine.
    pub fn isolation(&self) -> Isolation {
        self.descriptor.isolation
    }

    /// Returns what its plugin says of it.
    pub fn descriptor(&self) -> &SandboxTypeDescriptor {
        &self.descriptor
    }

    /// Checks a configuration and fills in its defaults.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], naming every field that is wrong.
    pub fn check_config(&self, config: Value) -> Result<Value, SchemaError> {
        self.schema
            .check(&format!("configuration of `{}`", self.name()), config)
    }

    /// Returns whether a field of the configuration takes nothing but text.
    pub(crate) fn is_text_field(&self, path: &[&str]) -> bool {
        self.schema.is_text_at(path)
    }

    /// Hides what a configuration has that nobody is shown.
    pub(crate) fn hide_secrets(&self, config: &mut Value) {
        self.schema.hide_secrets(config);
    }

    /// Looks whether sandboxes can be made here and now.
    pub async fn probe(&self) -> Health {
        let probed = async {
            let (object, seam) = self.code()?;
            let terms = Terms::within(seam.timeouts.probe);
            seam.call(terms, |call| object.probe(call)).await
        };
        probed
            .await
            .unwrap_or_else(|error| Health::unhealthy(error.to_string()))
    }

    pub(crate) async fn create(
        &self,
        config: &Value,
        services: SandboxServicesObject,
        until: &CancellationToken,
    ) -> Result<Instance, Error> {
        let (object, seam) = self.code()?;
        let terms = Terms {
            until: Some(until),
            ..Terms::within(seam.timeouts.create)
        };
        let created = seam.call(terms, |call| object.create(config, services, call));
        Ok(Instance::new(created.await?, Arc::clone(seam)))
    }

    pub(crate) async fn recover(
        &self,
        state: &State,
        services: SandboxServicesObject,
    ) -> Result<Option<Instance>, Error> {
        let (object, seam) = self.code()?;
        let terms = Terms::within(seam.timeouts.create);
        let found = seam.call(terms, |call| object.recover(state, services, call));
        let instance = |handle| Instance::new(handle, Arc::clone(seam));
        Ok(found.await?.map(instance))
    }

    pub(crate) async fn sweep(&self, request: &SweepRequest) -> Result<Swept, Error> {
        let (object, seam) = self.code()?;
        let terms = Terms::within(seam.timeouts.cleanup);
        seam.call(terms, |call| object.sweep(request, call)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_type_that_is_absent_no_configuration_is_shown() {
        let mut config = json!({ "image": "a", "token": "hunter2" });
        SandboxType::absent("gone").hide_secrets(&mut config);
        assert_eq!(config, json!({ "image": "***", "token": "***" }));
    }
}
