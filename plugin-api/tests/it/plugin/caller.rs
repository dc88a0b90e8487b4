//! A tool that calls back into its sandbox.

use boxyard_plugin_api::{ReadFile, WriteFile, prelude::*};

pub(super) struct Caller;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Params {
    /// What the sandbox is to run.
    command: Vec<String>,
    #[serde(default)]
    stdin: Option<String>,
}

/// What the sandbox answered to everything that a tool can ask in passing.
#[derive(Serialize)]
pub(super) struct Output {
    exit: CommandExit,
    stdout: String,
    read: String,
    info: Value,
    stats: Stats,
}

impl Tool for Caller {
    const NAME: &'static str = "caller";
    const DESCRIPTION: &'static str = "calls back";
    const SANDBOX_TYPES: &'static [&'static str] = &["model", "local_process"];
    type Params = Params;
    type Output = Output;

    fn open(plugin: &PluginContext) -> Result<Self> {
        super::opened(plugin, "Caller")?;
        Ok(Self)
    }

    async fn execute(&self, params: Params, sandbox: ToolContext, _call: &Call) -> Result<Output> {
        let write = WriteFile::new("/note");
        sandbox.write_file(&write, "from the tool").await?;
        let read = ReadFile::new("/note");
        let read = sandbox.read_file(&read).await?;
        let stdin = params.stdin.map(String::into_bytes);
        let run = sandbox.run(Command::argv(params.command), stdin).await?;
        Ok(Output {
            exit: run.exit,
            stdout: String::from_utf8_lossy(&run.stdout).into(),
            read: String::from_utf8_lossy(&read).into(),
            info: Value::Object(sandbox.info().await?),
            stats: sandbox.stats().await?,
        })
    }
}
