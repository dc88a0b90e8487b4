//! The environment of one command.

use std::{collections::BTreeMap, path::Path};

use boxyard_agent::protocol::Setup;

use super::user::User;
use crate::request::Command;

/// Variables by name.
#[derive(Debug)]
pub(super) struct Environment<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Environment<'a> {
    /// Puts the command's own variables over the sandbox's.
    pub(super) fn new(
        setup: &'a Setup,
        command: &'a Command,
        place: &'a Path,
        user: Option<&'a User>,
    ) -> Self {
        let mut variables = BTreeMap::new();
        if !command.clear_env {
            let sandbox = setup.env.iter();
            variables.extend(sandbox.map(|(name, value)| (name.as_str(), value.as_str())));
            if let Some(user) = user {
                variables.entry("HOME").or_insert(user.home.as_str());
            }
            if command.working_dir.is_some() && variables.contains_key("PWD") {
                variables.extend(place.to_str().map(|place| ("PWD", place)));
            }
        }
        let own = command.env.iter();
        variables.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
        Self(variables)
    }

    /// Returns where programs are looked for; `None` where nothing says so.
    pub(super) fn path(&self) -> Option<&'a str> {
        self.0.get("PATH").copied()
    }

    /// Returns `NAME=value` for each.
    pub(super) fn entries(&self) -> Vec<String> {
        let entry = |(name, value): (&&str, &&str)| format!("{name}={value}");
        self.0.iter().map(entry).collect()
    }
}
