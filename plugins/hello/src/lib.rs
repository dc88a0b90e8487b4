//! A tool that greets, in any sandbox: the smallest Boxyard plugin.

use boxyard_plugin_api::prelude::*;

struct Hello;

#[derive(Deserialize, JsonSchema)]
struct Params {
    /// Whom to greet.
    #[serde(default = "world")]
    name: String,
}

fn world() -> String {
    "world".into()
}

#[derive(Serialize)]
struct Greeting {
    message: String,
}

impl Tool for Hello {
    const NAME: &'static str = "hello";
    const DESCRIPTION: &'static str = "Greets by name.";
    type Params = Params;
    type Output = Greeting;

    fn open(_plugin: &PluginContext) -> Result<Self> {
        Ok(Self)
    }

    async fn execute(
        &self,
        params: Params,
        _sandbox: ToolContext,
        _call: &Call,
    ) -> Result<Greeting> {
        tracing::debug!(name = params.name, "greeting");
        Ok(Greeting {
            message: format!("Hello, {}!", params.name),
        })
    }
}

register_plugin! { tools: [Hello] }
