//! A start that is overtaken by the sandbox's end.

use std::sync::{Arc, Mutex};

use boxyard_host::{
    Error, ErrorCode, Host,
    plugin::{Offer, Placement},
};
use boxyard_plugin_api::{
    Call, CallController, Result, SandboxIdentity, State,
    abi::{SandboxServices, SandboxServicesObject, SandboxTypeObject},
};
use serde_json::{Value, json};

use super::{Dock, IMAGE, PLUGIN, relay::Relay};
use crate::world::{self, bounded};

/// Takes the plugin's type from the host, which never ends a sandbox that it is still starting.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Option<SandboxTypeObject>>>);

impl Placement for Taken {
    fn place(&self, mut offer: Offer) -> Result<Offer, Error> {
        *self.0.lock().unwrap() = offer.sandbox_types.pop();
        Err(Error::unavailable("the test keeps it for itself"))
    }
}

/// What a sandbox has of its host: nothing but a name.
struct Services(SandboxIdentity);

impl SandboxServices for Services {
    fn identity(&self) -> SandboxIdentity {
        self.0.clone()
    }

    fn event(&self, _kind: String, _data: Value) {}

    fn set_metadata(&self, _key: String, _value: Value) {}

    fn exited(&self, _reason: String) {}

    async fn save_state(&self, _state: State) -> Result<()> {
        Ok(())
    }
}

fn call() -> Call {
    CallController::new(0).call()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_a_start_and_nothing_runs_after_it() {
    let Some(mut dock) = Dock::new(IMAGE) else {
        return;
    };
    let relay = Relay::start().unwrap();
    let plugin = dock.yard.config.plugins.entry(PLUGIN.into()).or_default();
    plugin.settings = world::object(json!({ "host": relay.address() }));
    bounded(async {
        let taken = Taken::default();
        let host = Host::start_placed(dock.yard.config.clone(), taken.clone());
        let host = host.await.unwrap();
        let docker = taken.0.lock().unwrap().take().unwrap();
        for (stopped, stays) in [(true, false), (false, false), (true, true)] {
            let identity = SandboxIdentity::new(format!("{}-box", dock.id), &*dock.id, "test");
            let services = SandboxServicesObject::from_services(Services(identity));
            let config = json!({
                "image": IMAGE, "network_enabled": false, "remove_on_exit": !stays,
            });
            let sandbox = docker.create(&config, services, call()).await.unwrap();
            relay.hold("/start ");
            let start = tokio::spawn(sandbox.start(call()));
            relay.holds().await;
            if stopped {
                sandbox.stop(call()).await.unwrap();
            }
            sandbox.cleanup(call()).await.unwrap();
            // Though the engine never answered it.
            let error = start.await.unwrap().unwrap_err();
            assert_eq!(error.code(), ErrorCode::CANCELLED, "{error}");
            relay.release();
            let again = sandbox.start(call()).await.unwrap_err();
            assert_eq!(again.code(), ErrorCode::FAILED_PRECONDITION, "{again}");
            drop(sandbox);
            for container in dock.containers() {
                assert!(stays, "{container} is left");
                let state = ["inspect", "--format", "{{.State.Running}}", &container];
                assert_eq!(dock.ask(&state).unwrap(), "false");
                dock.ask(&["rm", &container]).unwrap();
            }
        }
        drop(docker);
        host.shutdown().await;
        dock.is_clean();
    })
    .await;
}
