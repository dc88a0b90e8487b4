//! The client of both servers: it speaks ms-enclave's routes over connections that it keeps.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use ureq::{Agent, http::Response};

use crate::SHELL;

/// No request may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The client of one server.
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .max_idle_connections(64)
            .max_idle_connections_per_host(64);
        Self {
            agent: config.build().into(),
            url: format!("http://{address}"),
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.agent
            .get(format!("{}/health", self.url))
            .call()
            .is_ok()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let request = self.agent.get(format!("{}{path}", self.url));
        document(request.call().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.url));
        document(request.send_json(body).unwrap())
    }

    /// Makes a sandbox and returns its id.
    pub(crate) fn create(&self, sandbox_type: &str, config: &Value) -> String {
        let path = format!("/sandbox/create?sandbox_type={sandbox_type}");
        text(&self.post(&path, config)["sandbox_id"])
    }

    pub(crate) fn delete(&self, id: &str) {
        let request = self.agent.delete(format!("{}/sandbox/{id}", self.url));
        document(request.call().unwrap());
    }

    /// Returns the ids of all sandboxes.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        let listed = self.get("/sandboxes");
        let listed = listed.as_array().unwrap().iter();
        listed.map(|sandbox| text(&sandbox["id"])).collect()
    }

    /// Runs the command that all servers are measured with.
    pub(crate) fn echo(&self, id: &str) {
        self.run(id, SHELL, &json!({ "command": "echo hi" }), "hi\n");
    }

    /// Runs a tool, which must put this out.
    pub(crate) fn run(&self, id: &str, tool: &str, parameters: &Value, output: &str) {
        assert_eq!(self.execute(id, tool, parameters), output);
    }

    /// Returns the time in nanoseconds at which a command runs that says no more.
    pub(crate) fn now(&self, id: &str) -> String {
        self.execute(id, SHELL, &now())
    }

    /// The same in a sandbox of the pool.
    pub(crate) fn now_in_pool(&self) -> String {
        let path = format!("/pool/execute?tool_name={SHELL}");
        text(&self.post(&path, &now())["output"])
    }

    fn execute(&self, id: &str, tool: &str, parameters: &Value) -> String {
        let body = json!({ "sandbox_id": id, "tool_name": tool, "parameters": parameters });
        text(&self.post("/sandbox/tool/execute", &body)["output"])
    }

    /// Makes the pool.
    pub(crate) fn initialize_pool(&self, size: usize, config: &Value) {
        let path = format!("/pool/initialize?pool_size={size}&sandbox_type=docker");
        self.post(&path, config);
    }
}

fn now() -> Value {
    json!({ "command": ["date", "+%s%N"] })
}

fn document(mut answer: Response<ureq::Body>) -> Value {
    answer.body_mut().read_json().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
