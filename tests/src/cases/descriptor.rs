//! What a plugin says of itself once it is loaded.

use boxyard_plugin_api::Capability;
use serde_json::Value;

use crate::{
    case::{
        Needs::{Library, SandboxType, Tool},
        cases,
    },
    subject::{Subject, call},
    verdict::{Finding, Outcome, check, check_eq},
};

/// Every capability that this version of the contract knows.
const KNOWN: [Capability; 10] = [
    Capability::COMMANDS,
    Capability::TERMINAL,
    Capability::USERS,
    Capability::FILES,
    Capability::ARCHIVES,
    Capability::STATS,
    Capability::LOGS,
    Capability::RESET,
    Capability::RECOVERY,
    Capability::SWEEP,
];

cases! {
    "descriptor-is-the-same-at-every-call" "D1" Must Library => stable;
    "descriptor-says-what-it-is" "D2" Should Library => has_descriptions;
    "descriptor-capabilities-are-known" "D3" Should SandboxType => capabilities_known;
    "descriptor-schema-is-a-schema" "D4" Must SandboxType => schema_is_a_schema;
    "descriptor-schema-describes-every-key" "D5" Should SandboxType => keys_described;
    "descriptor-tool-schema-is-a-schema" "D6" Must Tool => tool_schema;
    "descriptor-probe-answers-at-once" "D7" Must SandboxType => probe_answers;
}

async fn stable(subject: Subject) -> Outcome {
    let first = subject.offered()?;
    for _ in 0..20 {
        check_eq!(
            subject.offered()?,
            first,
            "what it offers when it is asked again"
        );
    }
    Ok(())
}

async fn has_descriptions(subject: Subject) -> Outcome {
    let offered = subject.offered()?;
    for known in &offered.sandbox_types {
        check!(
            !known.description.is_empty(),
            "type `{}` says nothing of itself",
            known.name
        );
    }
    for tool in &offered.tools {
        check!(
            !tool.description.is_empty(),
            "tool `{}` says nothing of itself",
            tool.name
        );
    }
    Ok(())
}

async fn capabilities_known(subject: Subject) -> Outcome {
    for declared in subject.descriptor()?.capabilities {
        if !KNOWN.iter().any(|known| known.0 == declared) {
            return Err(Finding::Warned(format!(
                "capability `{declared}` is none that this harness knows"
            )));
        }
    }
    Ok(())
}

fn check_schema(what: &str, schema: &Value) -> Outcome {
    check!(
        schema.is_object(),
        "the schema of {what} is no object: {schema}"
    );
    let valid = jsonschema::meta::validate(schema);
    check!(
        valid.is_ok(),
        "the schema of {what} is none: {}",
        valid
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    );
    check_eq!(
        schema["type"],
        "object",
        "what the schema of {what} describes"
    );
    Ok(())
}

async fn schema_is_a_schema(subject: Subject) -> Outcome {
    check_schema("its configuration", &subject.descriptor()?.config_schema)
}

async fn keys_described(subject: Subject) -> Outcome {
    let schema = subject.descriptor()?.config_schema;
    let properties = schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for (key, property) in properties {
        check!(
            property["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "configuration key `{key}` has no description"
        );
    }
    Ok(())
}

async fn tool_schema(subject: Subject) -> Outcome {
    for tool in subject.offered()?.tools {
        check_schema(&format!("tool `{}`", tool.name), &tool.parameters)?;
    }
    Ok(())
}

async fn probe_answers(subject: Subject) -> Outcome {
    let limit = std::time::Duration::from_secs(5);
    let probing = subject.sandbox_type()?.probe(call());
    let health = crate::subject::within(limit, "probing", probing).await??;
    check!(
        health.status == boxyard_plugin_api::HealthStatus::Healthy || !health.message.is_empty(),
        "it is not healthy, and does not say why"
    );
    Ok(())
}
