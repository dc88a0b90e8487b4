//! Builds the agent's program for the target and hands it to the library, which embeds it.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BOXYARD_AGENT");
    // Without the client this is the build of the program itself, which needs no other.
    if env::var_os("CARGO_FEATURE_CLIENT").is_none() {
        return Ok(());
    }
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let embedded = out_dir.join("boxyard-agent");
    let given = env::var_os("BOXYARD_AGENT").filter(|path| !path.is_empty());
    match given {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            fs::copy(&path, &embedded).map_err(|error| {
                format!("BOXYARD_AGENT={}: {error}", Path::new(&path).display())
            })?;
        }
        None if variable("CARGO_CFG_TARGET_OS")? == "linux" => build(&out_dir, &embedded)?,
        // Elsewhere the agent comes from a file, for the sandbox's system and not for this one.
        None => fs::write(&embedded, [])?,
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    println!(
        "cargo::rustc-env=BOXYARD_AGENT_ARCH={}",
        arch.to_string_lossy()
    );
    println!(
        "cargo::rustc-env=BOXYARD_AGENT_PROGRAM={}",
        embedded.display()
    );
    Ok(())
}

/// Builds the program with a cargo of its own, static and small, whatever the outer build is.
fn build(out_dir: &Path, embedded: &Path) -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    for source in ["Cargo.toml", "src"] {
        println!(
            "cargo::rerun-if-changed={}",
            manifest_dir.join(source).display()
        );
    }
    let target = variable("TARGET")?;
    let target_dir = out_dir.join("build");
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        if is_of_the_outer_build(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&manifest_dir)
        .args(["build", "--release", "--bin", "boxyard-agent"])
        .args(["--no-default-features", "--features", "agent", "--target"])
        .arg(&target)
        .arg("--target-dir")
        .arg(&target_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static",
        )
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "building the agent for {} failed ({status}); a program built elsewhere can be given \
             with BOXYARD_AGENT=FILE",
            Path::new(&target).display()
        )
        .into());
    }
    let built = target_dir.join(target).join("release/boxyard-agent");
    fs::copy(&built, embedded).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// What the outer build sets for its own crates, lints and wrappers. Where cargo keeps its things,
/// which toolchain it is and how many jobs may run stays.
fn is_of_the_outer_build(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "RUSTC",
        "RUSTDOC",
        "CARGO",
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_OFFLINE",
        "CARGO_HTTP_CAINFO",
        "CARGO_TERM_COLOR",
    ];
    let of_rustc = name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS");
    let of_cargo = name.starts_with("CARGO_")
        && !name.starts_with("CARGO_HTTP_")
        && !name.starts_with("CARGO_NET_")
        && !name.starts_with("CARGO_REGISTR")
        && !name.starts_with("CARGO_SOURCE_");
    let of_script = [
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
    ];
    (of_rustc || of_cargo || of_script.contains(&name) || name == "CLIPPY_ARGS")
        && !KEPT.contains(&name)
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
