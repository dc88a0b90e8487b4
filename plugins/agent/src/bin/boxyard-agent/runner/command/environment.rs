//! The environment of one command.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use boxyard_agent::protocol::Setup;

use super::user::{self, User};
use crate::request::Command;

/// Variables by name.
#[derive(Debug)]
pub(super) struct Environment<'a>(BTreeMap<&'a str, Cow<'a, str>>);

impl<'a> Environment<'a> {
    /// Puts the command's own variables over the sandbox's. Where neither says what `HOME` is, it
    /// is that of the user that the command runs as, named or not, as an engine's own `exec` has
    /// it: a shell's `~` and many programs need one.
    pub(super) fn new(
        setup: &'a Setup,
        command: &'a Command,
        place: &'a Path,
        user: Option<&'a User>,
    ) -> Self {
        let mut variables = BTreeMap::new();
        if !command.clear_env {
            variables.extend(setup.env.iter().map(borrowed));
            if command.working_dir.is_some() && variables.contains_key("PWD") {
                variables.extend(place.to_str().map(|place| ("PWD", place.into())));
            }
        }
        variables.extend(command.env.iter().map(borrowed));
        if !command.clear_env {
            // Last, because the agent's own user is looked up for it.
            variables.entry("HOME").or_insert_with(|| match user {
                Some(user) => user.home.as_str().into(),
                None => user::own_home().into(),
            });
        }
        Self(variables)
    }

    /// Returns where programs are looked for; `None` where nothing says so.
    pub(super) fn path(&self) -> Option<&str> {
        self.0.get("PATH").map(|path| &**path)
    }

    /// Returns `NAME=value` for each.
    pub(super) fn entries(&self) -> Vec<String> {
        let entry = |(name, value): (&&str, &Cow<'_, str>)| format!("{name}={value}");
        self.0.iter().map(entry).collect()
    }
}

fn borrowed<'a>((name, value): (&'a String, &'a String)) -> (&'a str, Cow<'a, str>) {
    (name, Cow::Borrowed(value))
}
