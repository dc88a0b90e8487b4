//! Sandboxes that are not the plugin's own, for its tools.

use boxyard_plugin_api::{Call, Result, Sandbox, abi::SandboxObject};

/// A sandbox that does nothing it is asked for.
struct Refusing;

impl Sandbox for Refusing {
    async fn start(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}

/// Makes a sandbox that answers `Unsupported` to everything.
pub(crate) fn refusing() -> SandboxObject {
    SandboxObject::from_sandbox(Refusing)
}
