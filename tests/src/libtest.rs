//! The cases as tests of a plugin's own package: one each, under the flags that `cargo test` takes.
//!
//! The package has a `tests/conformance.rs`:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use boxyard_conformance::{libtest, plugin_test};
//!
//! fn main() -> ExitCode {
//!     libtest::main(&plugin_test!())
//! }
//! ```
//!
//! And in its `Cargo.toml`:
//!
//! ```toml
//! [lib]
//! # `cdylib` is the plugin; only with `rlib` beside it does `cargo test` build it.
//! crate-type = ["cdylib", "rlib"]
//!
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! A test fails where the plugin does not conform because of its case, and is ignored where the
//! case means nothing for the plugin. What a plugin should keep and does not fails no test; it is
//! told at the end.

use std::{
    collections::BTreeMap,
    env::{
        self,
        consts::{DLL_PREFIX, DLL_SUFFIX},
    },
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};
use serde_json::{Map, Value};
use tokio::runtime;

use crate::{
    case::Case,
    cases, interrupt,
    report::CaseReport,
    subject::Target,
    suite::{self, Options, Session},
    verdict::Verdict,
};

/// Makes a [`PluginTest`](crate::libtest::PluginTest) of the plugin that the package of this test is.
#[macro_export]
macro_rules! plugin_test {
    () => {
        $crate::libtest::PluginTest::new(
            ::core::env!("CARGO_PKG_NAME"),
            ::core::env!("CARGO_MANIFEST_DIR"),
        )
    };
}

/// The plugin that a package is, and how its cases are run.
///
/// ```
/// use boxyard_conformance::plugin_test;
/// use serde_json::json;
///
/// let test = plugin_test!()
///     .sandbox_type("second-type")
///     .config(json!({ "image": "debian" }));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PluginTest {
    /// The package's name.
    package: String,
    /// The package's directory when the test was compiled.
    directory: PathBuf,
    sandbox_type: Option<String>,
    config: Value,
    seed: Option<u64>,
    env: BTreeMap<String, String>,
}

impl PluginTest {
    /// Takes a package, for [`plugin_test!`](crate::plugin_test).
    #[doc(hidden)]
    pub fn new(package: &str, directory: &str) -> Self {
        Self {
            package: package.into(),
            directory: directory.into(),
            sandbox_type: None,
            config: Map::new().into(),
            seed: None,
            env: BTreeMap::new(),
        }
    }

    /// Tests this sandbox type; the plugin's first without it. One more type is one more file in
    /// `tests`.
    pub fn sandbox_type(mut self, name: impl Into<String>) -> Self {
        self.sandbox_type = Some(name.into());
        self
    }

    /// Makes sandboxes with this configuration, an object; with the defaults without it.
    pub fn config(mut self, config: impl Into<Value>) -> Self {
        self.config = config.into();
        self
    }

    /// Takes everything random in the cases from this; from another number each time without it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets a variable in the environment of the plugin's host.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn options(&self) -> Result<Options> {
        let program = env::current_exe()?;
        let config = match &self.config {
            Value::Object(config) => config.clone(),
            other => bail!("the configuration of sandboxes: expected an object, found {other}"),
        };
        Ok(Options {
            target: Target {
                plugin: built(&self.directory()?, &program)?,
                sandbox_type: self.sandbox_type.clone(),
                config,
            },
            only: Vec::new(),
            seed: self.seed.unwrap_or_else(|| fastrand::u32(..).into()),
            jobs: 1,
            program,
            env: self.env.clone(),
        })
    }

    /// Returns the package's directory: not the one that this was compiled in where the package
    /// moved since.
    fn directory(&self) -> Result<PathBuf> {
        let running = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let of_this_package =
            env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == *self.package);
        let Some(running) = running.filter(|_| of_this_package) else {
            return Ok(self.directory.clone());
        };
        // Cargo takes packages of one name for one, where they share a target directory.
        ensure!(
            running == self.directory || !self.directory.exists(),
            "this test and its plugin were built from {}, expected {}: `cargo clean --package {}` \
             and test again, or give each its own target directory",
            self.directory.display(),
            running.display(),
            self.package
        );
        Ok(running)
    }
}

/// Runs the cases as the flags of the program say; what a test's `main` does.
pub fn main(test: &PluginTest) -> ExitCode {
    if let Some(code) = suite::case_process() {
        return code;
    }
    match run(test, &Arguments::from_args()) {
        Ok(_) if interrupt::is_asked() => ExitCode::from(interrupt::INTERRUPTED),
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(test: &PluginTest, arguments: &Arguments) -> Result<Conclusion> {
    if arguments.list {
        let nothing = |_: &Case| Ok(Completion::Completed);
        return Ok(libtest_mimic::run(arguments, trials(&nothing)));
    }
    interrupt::listen()?;
    let options = test.options()?;
    let seed = options.seed;
    let session = Arc::new(block_on(Session::new(options))??);
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (noted, running) = (notes.clone(), session.clone());
    let one = move |case: &Case| {
        let report = block_on(running.run_case(case)).and_then(|report| report);
        let report = report.map_err(|error| format!("{error:#}"))?;
        if let Some(note) = note(&report) {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push(note);
        }
        outcome(&report, seed)
    };
    let conclusion = libtest_mimic::run(arguments, trials(&one));
    block_on(session.sweep())?;
    for note in &*notes.lock().unwrap_or_else(PoisonError::into_inner) {
        writeln!(io::stderr(), "{note}")?;
    }
    Ok(conclusion)
}

fn trials<F>(run: &F) -> Vec<Trial>
where
    F: Fn(&Case) -> Result<Completion, Failed> + Clone + Send + 'static,
{
    let trials = cases::all().map(|case| {
        let run = run.clone();
        Trial::ignorable_test(case.id, move || run(case)).with_kind(case.clause)
    });
    trials.collect()
}

/// Says what a report is as the outcome of a test.
fn outcome(report: &CaseReport, seed: u64) -> Result<Completion, Failed> {
    if report.is_fatal() {
        return Err(format!(
            "{}: {}\nbreaks clause {}, with seed {seed}",
            report.verdict, report.message, report.clause
        )
        .into());
    }
    Ok(match report.verdict {
        Verdict::Skipped => Completion::ignored_with(&report.message),
        _ => Completion::Completed,
    })
}

/// Says what is worth knowing of a case whose test passes.
fn note(report: &CaseReport) -> Option<String> {
    let odd = report.verdict.is_bad() || report.verdict == Verdict::Warned;
    (odd && !report.is_fatal()).then(|| {
        format!(
            "note: {} {} (clause {}, which a plugin {} keep): {}",
            report.id,
            report.verdict,
            report.clause,
            report.level.name(),
            report.message
        )
    })
}

/// Each test runs on a thread of its own, and waits for its case there.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}

/// Returns the library that the build of a test made: the one beside it. What `cargo build` left
/// one directory above may be of another day.
fn built(package: &Path, test: &Path) -> Result<PathBuf> {
    let name = plugin_crate(&package.join("Cargo.toml"))?;
    let library = test.with_file_name(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"));
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let made = modified(&library).with_context(|| format!("no plugin at {}", library.display()))?;
    // Cargo links a test after what it depends on, and again whenever that was built again.
    ensure!(
        made <= modified(test)?,
        "{} is newer than the test beside it, so of another build: run `cargo test` again, after \
         `cargo clean` if it says so again",
        library.display()
    );
    Ok(library)
}

/// Returns the name of a package's library, if that is a plugin that `cargo test` builds.
fn plugin_crate(manifest: &Path) -> Result<String> {
    let text = fs::read_to_string(manifest);
    let text = text.with_context(|| format!("cannot read {}", manifest.display()))?;
    let manifest_of = |what: &str| format!("{}: {what}", manifest.display());
    let table: toml::Table = toml::from_str(&text).with_context(|| manifest_of("no TOML"))?;
    let library = table.get("lib");
    let in_library = |key: &str| library.and_then(|library| library.get(key));
    let types = in_library("crate-type").or_else(|| in_library("crate_type"));
    let types = types.and_then(toml::Value::as_array);
    let types: Vec<&str> = types
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .collect();
    ensure!(
        types.contains(&"cdylib") && (types.contains(&"rlib") || types.contains(&"lib")),
        manifest_of(&format!(
            "expected `crate-type = [\"cdylib\", \"rlib\"]` in `[lib]`, found {types:?}: the first \
             is the plugin, and without the second `cargo test` does not build it"
        ))
    );
    let package = || table.get("package").and_then(|package| package.get("name"));
    let name = in_library("name").or_else(package);
    let name = name.and_then(toml::Value::as_str);
    let name = name.with_context(|| manifest_of("expected a name, found none"))?;
    Ok(name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::case::Level;

    fn manifest(text: &str) -> Result<String, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("Cargo.toml");
        fs::write(&path, text).unwrap();
        plugin_crate(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_library_is_called_as_the_package_says() {
        let types = "crate-type = ['cdylib', 'rlib']";
        let own = format!("[package]\nname = 'my-box'\n[lib]\n{types}");
        assert_eq!(manifest(&own).unwrap(), "my_box");
        let other = format!("[package]\nname = 'my-box'\n[lib]\nname = 'other'\n{types}");
        assert_eq!(manifest(&other).unwrap(), "other");
    }

    #[test]
    fn what_cargo_test_does_not_build_is_no_plugin() {
        for (text, found) in [
            ("[package]\nname = 'a'", "found []"),
            (
                "[package]\nname = 'a'\n[lib]\ncrate-type = ['cdylib']",
                "found [\"cdylib\"]",
            ),
            (
                "[package]\nname = 'a'\n[lib]\ncrate-type = ['rlib']",
                "found [\"rlib\"]",
            ),
        ] {
            let error = manifest(text).unwrap_err();
            assert!(error.contains(found), "{text}: {error}");
        }
    }

    #[test]
    fn the_library_is_the_one_beside_the_test_and_no_newer() {
        let place = tempfile::tempdir().unwrap();
        let deps = place.path().join("target/debug/deps");
        fs::create_dir_all(&deps).unwrap();
        let manifest = "[package]\nname = 'my-box'\n[lib]\ncrate-type = ['cdylib', 'rlib']";
        fs::write(place.path().join("Cargo.toml"), manifest).unwrap();
        let name = format!("{DLL_PREFIX}my_box{DLL_SUFFIX}");
        let test = deps.join("conformance-0123");
        let made = |path: &Path, minutes: u64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minutes);
            File::create(path).unwrap().set_modified(time).unwrap();
        };
        made(&test, 5);
        // What only `cargo build` puts there is not looked at.
        made(&place.path().join("target/debug").join(&name), 4);
        let error = built(place.path(), &test).unwrap_err();
        assert!(error.to_string().contains("no plugin at"), "{error}");
        made(&deps.join(&name), 4);
        assert_eq!(built(place.path(), &test).unwrap(), deps.join(&name));
        made(&deps.join(&name), 6);
        let error = built(place.path(), &test).unwrap_err();
        assert!(error.to_string().contains("newer than the test"), "{error}");
    }

    #[test]
    fn only_what_a_plugin_must_keep_fails_a_test() {
        let report = |level, verdict, excluded| CaseReport {
            id: "exec-exit-code".into(),
            clause: "E2".into(),
            level,
            verdict,
            message: "expected 3, found 0".into(),
            excluded,
            duration_ms: 1,
        };
        let failed = outcome(&report(Level::Must, Verdict::Failed, false), 7).err();
        assert_eq!(
            failed.unwrap().message(),
            Some("failed: expected 3, found 0\nbreaks clause E2, with seed 7")
        );
        assert!(outcome(&report(Level::Must, Verdict::Skipped, false), 7).is_err());
        for (level, verdict, excluded, noted) in [
            (Level::Must, Verdict::Passed, false, false),
            (Level::Must, Verdict::Warned, false, true),
            (Level::Must, Verdict::Skipped, true, false),
            (Level::Should, Verdict::Failed, false, true),
            (Level::May, Verdict::TimedOut, false, true),
        ] {
            let report = report(level, verdict, excluded);
            let ignored = matches!(outcome(&report, 7).unwrap(), Completion::Ignored { .. });
            assert_eq!(ignored, verdict == Verdict::Skipped, "{report:?}");
            assert_eq!(note(&report).is_some(), noted, "{report:?}");
        }
    }
}
