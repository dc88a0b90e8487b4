//! What a manifest may say, and that the code must keep it.

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::PluginConfig;
use boxyard_plugin_api::API_VERSION;
use serde_json::{Value, json};

use super::{BAD, assert_refused, beside_good, check_refused, hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_cannot_be_understood_is_refused() -> Result<()> {
    let hello = hello()?;
    for (text, words) in [
        ("not JSON at all", ["malformed manifest", "rebuild it"]),
        ("{\"format\":1,", ["malformed manifest", "rebuild it"]),
        ("{}", ["missing field `format`", "rebuild it"]),
        ("{\"format\":1}", ["missing field `name`", "rebuild it"]),
        (
            "{\"format\":1,\"name\":null}",
            ["invalid type: null", "rebuild it"],
        ),
        (
            "{\"format\":2,\"name\":{\"new\":\"form\"}}",
            ["format 2, expected 1", "use a newer Boxyard"],
        ),
    ] {
        check_refused(&hello.with_manifest(text)?, &words).await?;
    }
    let marked = hello.with_manifest("no UTF-8 follows: ??")?;
    let no_text = marked.replacing(b"no UTF-8 follows: ??", b"no UTF-8 follows: \xff\xfe");
    check_refused(&no_text?, &["malformed manifest", "utf-8"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_none_are_refused() -> Result<()> {
    for key in ["version", "api_version", "min_host_api"] {
        let library = hello()?.with(key, "one")?;
        check_refused(
            &library,
            &["malformed manifest", &format!("{key} `one` is no version")],
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_promises_what_the_code_does_not_have_is_refused() -> Result<()> {
    let hello = hello()?;
    let good = Library::example("good")?.with("name", "bad")?;
    let lie = |library: &Library, key: &str, value: Value| library.with(key, value);
    for (library, words) in [
        (
            lie(
                &hello,
                "sandbox_types",
                json!([{ "name": "dream", "isolation": "vm" }]),
            )?,
            [
                "it promises the sandbox types dream (vm)",
                "its code offers none",
            ],
        ),
        (
            lie(&good, "sandbox_types", json!([]))?,
            [
                "it promises the sandbox types none",
                "its code offers good (none)",
            ],
        ),
        // A stronger isolation than the code declares is the lie that would hurt.
        (
            lie(
                &good,
                "sandbox_types",
                json!([{ "name": "good", "isolation": "vm" }]),
            )?,
            [
                "it promises the sandbox types good (vm)",
                "its code offers good (none)",
            ],
        ),
        (
            lie(&hello, "tools", json!(["hello", "goodbye"]))?,
            [
                "it promises the tools hello, goodbye",
                "its code offers hello",
            ],
        ),
        (
            Library::example("two_manifests")?,
            ["does not keep its manifest", "its code has another one"],
        ),
    ] {
        check_refused(&library, &words).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_for_another_api_is_refused() -> Result<()> {
    let api = |api_version: &str, min_host_api: &str| {
        let library = hello()?.with("api_version", api_version)?;
        library.with("min_host_api", min_host_api)
    };
    let host = format!("this host has {API_VERSION}");
    // While the host is a release candidate, nothing but the same one fits.
    let newer_minor = if API_VERSION.contains('-') {
        [
            "a release candidate works with itself only",
            "rebuild it with",
        ]
    } else {
        ["needs a host with plugin API 1.9.0", "use a newer Boxyard"]
    };
    for (library, words) in [
        (api("0.9.0", "0.9.0")?, ["plugin API 0.9.0", host.as_str()]),
        (
            api("2.0.0", "2.0.0")?,
            ["plugin API 2.0.0", "rebuild it with plugin API 1"],
        ),
        (api("1.9.0", "1.9.0")?, newer_minor),
        (
            api(API_VERSION, "1.9.0")?,
            [
                "needs a host with plugin API 1.9.0 or newer",
                "use a newer Boxyard",
            ],
        ),
    ] {
        check_refused(&library, &words).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_another_api_than_the_manifest_says_is_refused() -> Result<()> {
    // The manifest fits this host, the code inside says something else of the same length.
    let lie = API_VERSION.replacen('1', "7", 1);
    let library = hello()?.replacing(API_VERSION.as_bytes(), lie.as_bytes())?;
    let library = library
        .with("api_version", API_VERSION)?
        .with("min_host_api", API_VERSION)?;
    let words = [
        &format!("built with plugin API {API_VERSION}"),
        &format!("its code has {lie}")[..],
    ];
    check_refused(&library, &words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_would_abort_the_host_is_refused() -> Result<()> {
    let library = hello()?.with("panic_abort", true)?;
    check_refused(&library, &["panic=abort", "rebuild it with panic=unwind"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_provides_nothing_is_refused() -> Result<()> {
    let library = hello()?.with("tools", json!([]))?;
    check_refused(&library, &["provides no sandbox type and no tool"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_host_offers_are_refused() -> Result<()> {
    let library = Library::example("good")?.with("name", "bad")?;
    let long = "x".repeat(65);
    for name in [
        "",
        "Dream",
        "sweet_dream",
        "dream/",
        "träume",
        "\u{1b}[2J",
        &long,
    ] {
        let dream = json!([{ "name": name, "isolation": "vm" }]);
        let library = library.with("sandbox_types", dream)?;
        let named = format!("names the sandbox type `{}`", name.escape_debug());
        check_refused(&library, &[&named, "expected 1 to 64 of a-z, 0-9 and `-`"]).await?;
    }
    for name in ["", "Hello", "hel-lo", "../hello"] {
        let library = library.with("tools", json!([name]))?;
        let named = format!("names the tool `{name}`");
        check_refused(&library, &[&named, "expected 1 to 64 of a-z, 0-9 and `_`"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_name_cannot_lead_out_of_the_state_directory() -> Result<()> {
    for name in ["", "..", "../../escaped", "/escaped", "a b", "a\nb"] {
        let yard = Yard::new()?;
        yard.put(BAD, &hello()?.with("name", name)?)?;
        assert_refused(&beside_good(&yard).await?, &["is called", "expected"]);
        assert!(!yard.root().join("escaped").exists());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_switches_a_plugin_off() -> Result<()> {
    let mut yard = Yard::new()?;
    yard.put(BAD, &hello()?)?;
    let off = PluginConfig {
        enabled: false,
        ..PluginConfig::default()
    };
    yard.config
        .plugins
        .insert("boxyard-plugin-hello".into(), off);
    let words = ["is switched off by `plugins.boxyard-plugin-hello.enabled`"];
    assert_refused(&beside_good(&yard).await?, &words);
    Ok(())
}
