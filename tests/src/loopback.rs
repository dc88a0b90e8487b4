//! A placement whose plugins are reached through bytes alone: the blueprint of a worker process.
//!
//! Everything that crosses between the host and a plugin once it is initialised has a byte form.
//! [`Loopback`] proves it: for each plugin it makes a pair of byte streams, puts what the plugin
//! offers behind the *far* end, and gives the host proxies that know nothing but the *near* end.
//!
//! 1. `frame`: a frame is a JSON header and a body of raw bytes, each with its length in front.
//! 2. `message`: what headers say. Requests and their answers, notes that need no answer,
//!    requests to stop, and the release of objects.
//! 3. `peer`: one end. Objects that it hands to the other end have a number in its table until
//!    the other end releases them; requests of either end run as tasks, so that neither end ever
//!    waits for the other while it reads.
//! 4. `serve`: what an end does for the other with an object of its table.
//! 5. `remote`: an object of the other end, and what it is asked.
//! 6. `proxy` and `stream`: such an object in the shape of plugin-api's traits.
//!
//! Both ends are the same code: a tool at the far end calls its sandbox at the near end as the
//! host calls the tool.
//!
//! **Cancellation** takes two steps, as it does in process. When a call is asked to stop, its
//! `cancel` message passes that on, and the answer is still awaited. Only when the near future is
//! dropped does `abandon` drop the far one.
//!
//! **Invariants.** An end never blocks on the other's behalf. Bytes in flight are bounded by the
//! requests in flight: one piece of a stream each. What is handed over in an answer that nobody
//! waits for any more is released. A log record does not come this way: a plugin is given its line
//! to the host's log when it is initialised, which is before it is placed.

mod frame;
mod message;
mod peer;
mod proxy;
mod remote;
mod serve;
mod stream;

use boxyard_host::{
    Error,
    plugin::{Offer, Placement},
};
use boxyard_plugin_api::abi::{SandboxTypeObject, ToolObject};
use tokio::runtime::Handle;

use peer::Peer;
use proxy::{RemoteTool, RemoteType};
use remote::Request;
use serve::Descriptions;

/// How many bytes may be on their way in each direction: less than most messages, so that
/// every message is taken apart and joined again.
const BUFFER: usize = 4096;

/// Plugins are reached through a pair of byte streams each, within the host's process.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

impl Placement for Loopback {
    fn place(&self, offer: Offer) -> Result<Offer, Error> {
        let runtime = Handle::current();
        let plugin = offer.plugin.clone();
        let (near, far) = tokio::io::duplex(BUFFER);
        Peer::serve(far, offer, &runtime);
        let root = Peer::connect(near, &runtime);
        let answer = runtime.block_on(root.request(Request::plain("offer")))?;
        let descriptions: Descriptions = serde_json::from_value(answer.value)?;
        let mut remotes = answer.handed.into_iter();
        Ok(Offer {
            plugin,
            sandbox_types: descriptions
                .sandbox_types
                .into_iter()
                .zip(remotes.by_ref())
                .map(|(description, remote)| {
                    SandboxTypeObject::from_backend(RemoteType::new(description, remote))
                })
                .collect(),
            tools: descriptions
                .tools
                .into_iter()
                .zip(remotes)
                .map(|(description, remote)| {
                    ToolObject::from_tool(RemoteTool::new(description, remote))
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
