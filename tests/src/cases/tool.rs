//! Tools.

use boxyard_plugin_api::{CallController, ErrorCode};
use serde_json::{Value, json};

use crate::{
    case::{Needs::Tool, cases},
    subject::{Subject, bench, call, within},
    verdict::{Outcome, check, check_eq},
};

/// How long a tool may take to hear that nobody waits for it.
const SOON: std::time::Duration = std::time::Duration::from_secs(10);

cases! {
    "tool-parameters-name-every-key" "T1" Should Tool => keys_described;
    "tool-has-an-openai-schema" "T1" Must Tool => openai_schema;
    "tool-wrong-parameters-are-an-error" "T2" Must Tool => wrong_parameters;
    "tool-in-a-sandbox-that-refuses-everything" "T3" Must Tool => answers;
    "tool-that-is-cancelled-ends" "T4" Must Tool => cancelled;
    "tool-can-be-called-again" "T5" Must Tool => again;
}

async fn keys_described(subject: Subject) -> Outcome {
    for tool in subject.offered()?.tools {
        let properties = tool.parameters["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (key, property) in properties {
            check!(
                property["description"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "parameter `{key}` of tool `{}` has no description",
                tool.name
            );
        }
    }
    Ok(())
}

async fn openai_schema(subject: Subject) -> Outcome {
    for tool in subject.offered()?.tools {
        let schema = tool.openai_schema();
        let name = schema["function"]["name"].as_str().unwrap_or_default();
        let fits = !name.is_empty()
            && name.len() <= 64
            && name
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "_-".contains(it));
        check!(
            fits,
            "`{name}` is no name that models take: letters, digits, `_`, `-`, up to 64"
        );
    }
    Ok(())
}

async fn wrong_parameters(subject: Subject) -> Outcome {
    for tool in subject.tools() {
        // The host looks at objects by their schema before the tool sees them.
        for params in [json!("text"), json!([1]), json!(17)] {
            let ran = tool.execute(&params, bench::refusing(), call()).await;
            let code = ran.map_err(|error| error.code());
            check_eq!(
                code,
                Err(ErrorCode::INVALID_ARGUMENT),
                "the parameters {params}"
            );
        }
    }
    Ok(())
}

/// The least that a schema asks for.
fn least(schema: &Value) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let value = |key: &Value| {
        let property = &schema["properties"][key.as_str().unwrap_or_default()];
        let value = match property["type"].as_str() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => json!("text"),
        };
        (key.as_str().unwrap_or_default().to_owned(), value)
    };
    Value::Object(required.iter().map(value).collect())
}

/// Calls every tool so many times, with the least parameters.
async fn no_panic(subject: &Subject, times: usize) -> Outcome {
    for tool in subject.tools() {
        let described = tool.describe()?;
        let params = least(&described.parameters);
        for number in 1..=times {
            let ran = tool.execute(&params, bench::refusing(), call()).await;
            check!(
                ran.map_err(|error| error.code()) != Err(ErrorCode::PANICKED),
                "tool `{}` panicked at call {number} with the parameters {params}",
                described.name
            );
        }
    }
    Ok(())
}

async fn answers(subject: Subject) -> Outcome {
    no_panic(&subject, 1).await
}

async fn again(subject: Subject) -> Outcome {
    no_panic(&subject, 5).await
}

async fn cancelled(subject: Subject) -> Outcome {
    for tool in subject.tools() {
        let described = tool.describe()?;
        let controller = CallController::new(0);
        let params = least(&described.parameters);
        let running = tool.execute(&params, bench::refusing(), controller.call());
        controller.cancel();
        // What it answers is its own; that it does is what counts.
        let _ = within(SOON, "the end of a tool that was cancelled", running).await?;
    }
    Ok(())
}
