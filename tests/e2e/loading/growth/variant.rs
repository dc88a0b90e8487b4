//! Copies of the plugin API and of the host in which something is different.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::cargo::{self, Artifacts};

/// A plugin API that is not this workspace's, with a plugin and a host built on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// This workspace's, as version 1.0.0.
    Older,
    /// With one entry more at the end of three tables, as version 1.1.0.
    Newer,
    /// Without one of the entries, as version 1.0.0. It has no host.
    Removed,
    /// With two entries in each other's place, as version 1.0.0. It has no host.
    Swapped,
}

/// The files of a workspace, by their path in it.
type Files = BTreeMap<PathBuf, String>;

impl Variant {
    pub(super) const ALL: [Self; 4] = [Self::Older, Self::Newer, Self::Removed, Self::Swapped];

    /// Returns the name of its plugin and of that plugin's sandbox type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Older => "older",
            Self::Newer => "newer",
            Self::Removed => "removed",
            Self::Swapped => "swapped",
        }
    }

    /// Builds its plugin, and returns the file.
    pub(super) fn plugin(self) -> Result<PathBuf> {
        self.built(self.name())
    }

    /// Builds its host, and returns the program.
    pub(super) fn host(self) -> Result<PathBuf> {
        self.built(&self.host_name())
    }

    /// Returns the name of its host; every program in a target directory needs its own.
    fn host_name(self) -> String {
        format!("{}-host", self.name())
    }

    fn has_host(self) -> bool {
        matches!(self, Self::Older | Self::Newer)
    }

    fn built(self, target: &str) -> Result<PathBuf> {
        let built = self.build()?.remove(target);
        built.with_context(|| format!("{self:?} has no {target}"))
    }

    /// Builds everything; cargo leaves alone what is built already.
    fn build(self) -> Result<Artifacts> {
        // The target directory of this test: what they depend on is compiled in it already.
        let target = cargo::target_dir()?;
        let variants = target.join("abi-growth");
        fs::create_dir_all(&variants)?;
        let one_at_a_time = File::create(variants.join("building"))?;
        one_at_a_time.lock()?;
        let directory = variants.join(self.name());
        write(&directory, &self.files()?)?;
        let mut command = cargo::foreign_build(cargo::cargo(), &directory, &target);
        // This workspace's lock, with less in it: all that it names has been here already.
        command.args(["--offline", "--package", self.name()]);
        if self.has_host() {
            command.args(["--package", &self.host_name()]);
        }
        cargo::build(command)
    }

    fn files(self) -> Result<Files> {
        let mut files = Files::new();
        for name in ["Cargo.toml", "Cargo.lock"] {
            copy(Path::new(name), &mut files)?;
        }
        copy(Path::new("plugin-api"), &mut files)?;
        without_tests(&mut files, "plugin-api/Cargo.toml")?;
        self.add_package(&mut files, "plugin", self.name())?;
        if self.has_host() {
            copy(Path::new("host"), &mut files)?;
            without_tests(&mut files, "host/Cargo.toml")?;
            self.add_package(&mut files, "outside-host", &self.host_name())?;
        }
        for members in ["\nmembers = [", "\ndefault-members = ["] {
            set_between(&mut files, "Cargo.toml", members, "]", "\"*/*\"")?;
        }
        for package in ["plugin-api", "host"] {
            edit(
                &mut files,
                "Cargo.toml",
                &format!("path = \"{package}\""),
                &format!("path = \"{}/{package}\"", self.name()),
            )?;
        }
        let version = if self == Self::Newer {
            "1.1.0"
        } else {
            "1.0.0"
        };
        set_between(
            &mut files,
            "plugin-api/Cargo.toml",
            "\nversion = \"",
            "\"",
            version,
        )?;
        let min_host_api = "\npub const MIN_HOST_API: &str = \"";
        set_between(
            &mut files,
            "plugin-api/src/lib.rs",
            min_host_api,
            "\"",
            "1.0.0",
        )?;
        match self {
            Self::Older => {}
            Self::Newer => append_entries(&mut files)?,
            Self::Removed => remove_entry(&mut files)?,
            Self::Swapped => swap_entries(&mut files)?,
        }
        Ok(self.apart(files))
    }

    /// Moves the packages to a directory with the variant's name.
    ///
    /// In one target directory cargo tells packages of one name and version apart by their
    /// path in their workspace, and would take one variant's plugin API for another's.
    fn apart(self, files: Files) -> Files {
        let moved = files.into_iter().map(|(path, text)| {
            let in_package = path.components().count() > 1;
            let path = if in_package {
                Path::new(self.name()).join(path)
            } else {
                path
            };
            (path, text)
        });
        moved.collect()
    }

    /// Adds a package of one file.
    fn add_package(self, files: &mut Files, directory: &str, name: &str) -> Result<()> {
        let plugin = directory == "plugin";
        let default = if self == Self::Newer { "\"newer\"" } else { "" };
        let (kind, file, dependencies) = if plugin {
            (
                "[lib]\ncrate-type = [\"cdylib\"]",
                "lib.rs",
                PLUGIN_DEPENDENCIES,
            )
        } else {
            ("", "main.rs", HOST_DEPENDENCIES)
        };
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n{kind}\n\n\
             [features]\ndefault = [{default}]\nnewer = []\n\n[dependencies]\n{dependencies}"
        );
        files.insert(Path::new(directory).join("Cargo.toml"), manifest);
        let source = if plugin { "plugin.rs" } else { "host.rs" };
        let source = cargo::workspace()
            .join("tests/fixtures/outside")
            .join(source);
        let target = Path::new(directory).join("src").join(file);
        files.insert(target, fs::read_to_string(source)?);
        Ok(())
    }
}

const PLUGIN_DEPENDENCIES: &str = "\
boxyard-plugin-api.workspace = true
schemars.workspace = true
serde.workspace = true
";

const HOST_DEPENDENCIES: &str = "\
boxyard-host.workspace = true
serde_json.workspace = true
tokio = { workspace = true, features = [\"macros\", \"rt-multi-thread\"] }
";

/// Takes a file, or what cargo needs of a package.
fn copy(path: &Path, files: &mut Files) -> Result<()> {
    let source = cargo::workspace().join(path);
    if source.is_file() {
        files.insert(path.into(), fs::read_to_string(source)?);
        return Ok(());
    }
    for entry in fs::read_dir(source)? {
        let name = entry?.file_name();
        // Tests have dependencies of their own.
        if !["tests", "benches", "examples"]
            .iter()
            .any(|skipped| name == *skipped)
        {
            copy(&path.join(name), files)?;
        }
    }
    Ok(())
}

/// Takes the tests out of a package's manifest; what they depend on may not be at hand.
fn without_tests(files: &mut Files, manifest: &str) -> Result<()> {
    set_between(files, manifest, "\n[dev-dependencies]", "\n[lints]", "")
}

/// Makes a directory hold just these files; what is the same keeps its time, and its build.
fn write(directory: &Path, files: &Files) -> Result<()> {
    remove_others(directory, Path::new(""), files)?;
    for (path, text) in files {
        let path = directory.join(path);
        if fs::read_to_string(&path).is_ok_and(|found| found == *text) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// Removes what an earlier build had and this one has not.
fn remove_others(directory: &Path, inner: &Path, files: &Files) -> Result<()> {
    let here = directory.join(inner);
    if !here.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(here)? {
        let entry = entry?;
        let path = inner.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(directory, &path, files)?;
            if !files.keys().any(|file| file.starts_with(&path)) {
                fs::remove_dir(entry.path())?;
            }
        } else if !files.contains_key(&path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Replaces what is between two texts.
fn set_between(files: &mut Files, path: &str, start: &str, end: &str, new: &str) -> Result<()> {
    let text = files.get_mut(Path::new(path)).context(path.to_owned())?;
    let place = text.find(start).and_then(|at| {
        let from = at + start.len();
        let length = text.get(from..)?.find(end)?;
        Some(from..from + length)
    });
    let place = place.with_context(|| stale(path, start))?;
    text.replace_range(place, new);
    Ok(())
}

/// Replaces a text that is there once.
fn edit(files: &mut Files, path: &str, old: &str, new: &str) -> Result<()> {
    let text = files.get_mut(Path::new(path)).context(path.to_owned())?;
    ensure!(text.matches(old).count() == 1, stale(path, old));
    *text = text.replace(old, new);
    Ok(())
}

fn append(files: &mut Files, path: &str, more: &str) -> Result<()> {
    let text = files.get_mut(Path::new(path)).context(path.to_owned())?;
    text.push_str(more);
    Ok(())
}

fn stale(path: &str, text: &str) -> String {
    format!("{path} has changed: expected `{text}` in it, once; correct this test")
}

const SANDBOX: &str = "plugin-api/src/abi/sandbox.rs";
const HOST: &str = "plugin-api/src/abi/host.rs";

/// Appends an entry `generation` to a sandbox's table and to those of the host's services.
fn append_entries(files: &mut Files) -> Result<()> {
    for (path, table, after) in [
        (SANDBOX, "Sandbox", "reset"),
        (HOST, "HostServices", "get_interface"),
        (HOST, "SandboxServices", "save_state"),
    ] {
        append_entry(files, path, &format!("pub struct {table}VTable {{"))?;
        let value = format!("        {after}: Self::{after},\n    }};");
        let longer = value.replace("    };", "        generation: Self::generation,\n    };");
        edit(files, path, &value, &longer)?;
        append(
            files,
            path,
            &format!(
                "
impl {table}Object {{
    /// Returns the generation, where the other side has one.
    pub fn generation(&self) -> Option<u32> {{
        let entry = self.vtable().generation()?;
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
        Some(unsafe {{ entry(self.instance()) }})
    }}
}}
"
            ),
        )?;
    }
    append(
        files,
        SANDBOX,
        "
impl<S: Sandbox> Live<S> {
    unsafe extern \"C\" fn generation(this: Instance) -> u32 {
        // SAFETY: entries are called with instances of their table.
        unsafe { this.get::<Self>() }.sandbox.generation()
    }
}
",
    )?;
    for (shim, bound) in [
        ("HostShim", "HostServices"),
        ("ServicesShim", "SandboxServices"),
    ] {
        let entry = format!(
            "
impl<T: {bound}> {shim}<T> {{
    unsafe extern \"C\" fn generation(_this: Instance) -> u32 {{
        11
    }}
}}
"
        );
        append(files, HOST, &entry)?;
    }
    offer_generation(files)
}

/// Lets authors and the host use the new entries.
fn offer_generation(files: &mut Files) -> Result<()> {
    let sandbox = "pub trait Sandbox: Send + Sync + 'static {\n";
    let method =
        "    /// Returns the generation.\n    fn generation(&self) -> u32 {\n        0\n    }\n\n";
    edit(
        files,
        "plugin-api/src/sandbox.rs",
        sandbox,
        &format!("{sandbox}{method}"),
    )?;
    for (path, of, inner) in [
        ("plugin-api/src/sandbox.rs", "SandboxHandle", "self.0"),
        ("host/src/backend.rs", "Instance", "self.handle"),
        ("host/src/sandbox.rs", "Sandbox", "self.instance.as_ref()?"),
    ] {
        let more = format!(
            "
impl {of} {{
    /// Returns the generation, where the plugin has one.
    pub fn generation(&self) -> Option<u32> {{
        {inner}.generation()
    }}
}}
"
        );
        append(files, path, &more)?;
    }
    append(
        files,
        "plugin-api/src/context.rs",
        "
impl SandboxContext {
    /// Returns the generation of the host's services.
    pub fn generation(&self) -> Result<u32> {
        let generation = self.0.services.generation();
        generation.ok_or_else(|| crate::Error::unsupported(\"telling a generation\"))
    }
}
",
    )?;
    append(
        files,
        "plugin-api/src/lib.rs",
        "
/// The generation of the host, where it has one.
pub static HOST_GENERATION: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
",
    )?;
    let start = "contained(|| start(request.as_str(), host))";
    let recorded = "contained(|| {
        let _ = crate::HOST_GENERATION.set(host.generation());
        start(request.as_str(), host)
    })";
    edit(files, "plugin-api/src/register/plugin.rs", start, recorded)
}

/// Appends an entry to a table.
fn append_entry(files: &mut Files, path: &str, table: &str) -> Result<()> {
    let text = files.get(Path::new(path)).context(path.to_owned())?;
    let (_, body) = text.split_once(table).with_context(|| stale(path, table))?;
    let (body, _) = body
        .split_once("\n}\n")
        .with_context(|| stale(path, table))?;
    let entry = "    /// Returns the generation.\n    pub generation: unsafe extern \"C\" fn(this: Instance) -> u32,";
    let longer = format!("{table}{body}\n{entry}");
    edit(files, path, &format!("{table}{body}"), &longer)
}

/// Removes the entry `logs` from a sandbox's table.
fn remove_entry(files: &mut Files) -> Result<()> {
    set_between(
        files,
        SANDBOX,
        "    /// Does a [`LogRequest`]",
        "    /// Brings it back",
        "",
    )?;
    edit(files, SANDBOX, "    /// Does a [`LogRequest`]", "")?;
    edit(files, SANDBOX, "        logs: Self::logs,\n", "")?;
    edit(files, SANDBOX, "get_archive, logs;", "get_archive;")?;
    edit(
        files,
        "plugin-api/src/sandbox.rs",
        "        logs(LogRequest);\n",
        "",
    )
}

/// Puts the entries `stop` and `cleanup` of a sandbox's table in each other's place.
///
/// They have the same shape: a host that did not look at names would call the wrong one.
fn swap_entries(files: &mut Files) -> Result<()> {
    edit(
        files,
        SANDBOX,
        "    pub stop: unsafe",
        "    pub swapped: unsafe",
    )?;
    edit(
        files,
        SANDBOX,
        "    pub cleanup: unsafe",
        "    pub stop: unsafe",
    )?;
    edit(
        files,
        SANDBOX,
        "    pub swapped: unsafe",
        "    pub cleanup: unsafe",
    )
}
