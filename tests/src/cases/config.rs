//! What a sandbox type takes as its configuration.

use boxyard_plugin_api::ErrorCode;
use serde_json::{Value, json};

use crate::{
    case::{Needs::SandboxType, cases},
    subject::{Live, Subject},
    verdict::{Outcome, check, check_eq},
};

cases! {
    "config-defaults-are-enough" "C1" Must SandboxType => defaults;
    "config-unknown-key-is-refused" "C2" Must SandboxType => unknown_key;
    "config-wrong-type-names-the-key" "C3" Must SandboxType => wrong_type;
    "config-schema-and-code-agree" "C4" Must SandboxType => schema_and_code;
    "config-no-object-is-refused" "C4" Must SandboxType => no_object;
    "config-refused-one-leaves-nothing" "C5" Must SandboxType => leaves_nothing { leaves_nothing: true };
    "config-schema-has-no-secret" "C6" Must SandboxType => schema_has_no_secret;
}

async fn defaults(subject: Subject) -> Outcome {
    // With the configuration under test, which is nothing but defaults unless one was given.
    let live = subject.created().await?;
    live.close().await
}

async fn unknown_key(subject: Subject) -> Outcome {
    let key = "no_such_key_of_a_conformance_test";
    let checked = subject.config_with(json!({ key: 1 }));
    check!(
        checked.is_err(),
        "its schema accepts the unknown key `{key}`"
    );
    Ok(())
}

async fn wrong_type(subject: Subject) -> Outcome {
    let schema = subject.descriptor()?.config_schema;
    let properties = schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for key in properties.keys() {
        // Nothing that anybody means by a value.
        let wrong = json!({ key: [{"": [null]}] });
        match subject.config_with(wrong) {
            Ok(_) => check!(
                false,
                "key `{key}` takes anything: expected its schema to say what"
            ),
            Err(error) => {
                let text = format!("{error:#}");
                check!(
                    text.contains(key.as_str()),
                    "the error does not name `{key}`: {text}"
                );
            }
        }
    }
    Ok(())
}

/// The code is asked past the schema, as a host of another version may do.
async fn refused_by_code(subject: &Subject, config: &Value) -> Outcome {
    let made = Live::create(subject.sandbox_type()?, config, subject.lease()).await;
    match made {
        Ok(live) => {
            live.close().await?;
            check!(false, "its code accepts {config}, which its schema refuses");
            Ok(())
        }
        Err(error) => {
            check_eq!(
                error.code(),
                ErrorCode::INVALID_ARGUMENT,
                "the error for {config}: {error}"
            );
            Ok(())
        }
    }
}

async fn schema_and_code(subject: Subject) -> Outcome {
    let mut config = subject.config()?;
    config["no_such_key_of_a_conformance_test"] = json!(1);
    refused_by_code(&subject, &config).await
}

async fn no_object(subject: Subject) -> Outcome {
    for config in [json!("text"), json!(17), json!([1])] {
        refused_by_code(&subject, &config).await?;
    }
    Ok(())
}

async fn leaves_nothing(subject: Subject) -> Outcome {
    let before = entries(&subject)?;
    let mut config = subject.config()?;
    config["no_such_key_of_a_conformance_test"] = json!(1);
    refused_by_code(&subject, &config).await?;
    check_eq!(entries(&subject)?, before, "what is in its data directory");
    Ok(())
}

/// Everything below the plugin's data directory.
fn entries(subject: &Subject) -> Outcome<Vec<String>> {
    Ok(super::paths_below(&subject.data_dir()?)?)
}

async fn schema_has_no_secret(subject: Subject) -> Outcome {
    let text = subject.descriptor()?.config_schema.to_string();
    check!(
        !text.contains(&crate::secret()),
        "its schema has the value of a variable of the host"
    );
    Ok(())
}
