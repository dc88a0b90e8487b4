//! What a caller gets wrong is told by name, with what was likely meant.

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::{CreateError, CreateRequest, Host, ToolError, ToolStatus};
use serde_json::{Map, Value, json};

use super::{GOOD, works};

async fn host(yard: &Yard) -> Result<Host> {
    yard.put(GOOD, &Library::example("good")?)?;
    yard.host().await
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_type_names_the_nearest_and_all_there_are() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let error = host.manager().create(CreateRequest::new("goood")).await;
    let Err(error @ CreateError::UnknownType(_)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error.to_string(),
        "there is no sandbox type `goood` (did you mean `good`?): there are good"
    );
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_names_every_field() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    for (config, words) in [
        (
            json!({ "times": "many" }),
            "`times`: \"many\" is not of type \"integer\"",
        ),
        (
            json!({ "times": 256 }),
            "`times`: 256 is greater than the maximum of 255",
        ),
        (
            json!({ "prefx": "> " }),
            "`prefx`: unknown key; did you mean `prefix`?",
        ),
        (
            json!({ "colour": 1 }),
            "`colour`: unknown key; expected one of prefix, times",
        ),
        (json!({ "times": -1, "prefx": "" }), "`times`: "),
        (json!({ "times": -1, "prefx": "" }), "`prefx`: "),
    ] {
        let request = CreateRequest::new("good").config(object(config.clone()));
        let error = host.manager().create(request).await;
        let Err(error @ CreateError::Config(_)) = error else {
            panic!("{config}: {error:?}");
        };
        let text = error.to_string();
        assert!(
            text.starts_with("wrong configuration of `good`: "),
            "{text}"
        );
        assert!(text.contains(words), "no `{words}` in: {text}");
    }
    assert!(host.manager().list().is_empty());
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tool_names_the_nearest() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = host.manager().create(CreateRequest::new("good")).await?;
    let error = sandbox.execute_tool("repeet", json!({}), None).await;
    let Err(error @ ToolError::Unknown { .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error.to_string(),
        "there is no tool `repeet` (did you mean `repeat`?): there are file_operation, \
         multi_code_executor, notebook_executor, python_executor, repeat, shell_executor"
    );
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_break_the_schema_are_named_and_never_arrive() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = host.manager().create(CreateRequest::new("good")).await?;
    for (params, words) in [
        (
            json!({ "times": 2 }),
            "`text`: missing, and it has no default",
        ),
        (
            json!({ "text": "a", "times": 10 }),
            "`times`: 10 is greater than the maximum of 9",
        ),
        (
            json!({ "text": 1, "times": 1 }),
            "`text`: 1 is not of type \"string\"",
        ),
        (
            json!({ "text": "a", "times": 1, "tims": 1 }),
            "`tims`: unknown key; did you mean `times`?",
        ),
        (json!([]), "is not of type \"object\""),
    ] {
        let error = sandbox.execute_tool("repeat", params.clone(), None).await;
        let Err(error @ ToolError::Params(_)) = error else {
            panic!("{params}: {error:?}");
        };
        let text = error.to_string();
        assert!(text.starts_with("wrong parameters of `repeat`: "), "{text}");
        assert!(text.contains(words), "no `{words}` in: {text}");
    }
    let answer = sandbox
        .execute_tool("repeat", json!({ "text": "ab", "times": 2 }), None)
        .await?;
    assert_eq!(
        (answer.status, answer.output),
        (ToolStatus::Success, json!("abab"))
    );
    host.shutdown().await;
    Ok(())
}
