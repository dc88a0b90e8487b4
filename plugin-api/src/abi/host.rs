//! What the host does for a plugin.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use abi_stable::{
    StableAbi,
    std_types::{ROption, RResult, RStr, RString},
};
use async_ffi::FfiFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Result, SandboxIdentity, State,
    abi::{
        Failure, Instance, Object,
        object::{impl_vtable, vtable_ref},
    },
    register::shim,
};

/// What a host tells a plugin when it initialises it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitRequest {
    /// The host program's version.
    pub host_version: String,
    /// The plugin API that the host was built with.
    pub host_api: String,
    /// Names this host among those that share an engine.
    pub host_id: String,
    /// Where the plugin was found; not necessarily what was opened.
    pub path: String,
    /// A directory for the plugin alone, which is there.
    pub data_dir: String,
    /// Threads of the plugin's runtime.
    pub runtime_threads: usize,
    /// Which events and spans the host wants, as `tracing_subscriber`'s `Targets` spells it.
    pub log_filter: String,
    /// The operator's settings for this plugin.
    pub settings: Value,
}

/// One event, or one span's opening or closing, on its way to the host's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Telemetry {
    /// Something happened.
    Event {
        /// `ERROR` to `TRACE`.
        level: String,
        /// The module or the name that the author gave.
        target: String,
        /// The text.
        #[serde(default)]
        message: String,
        /// Everything else that was recorded.
        #[serde(default)]
        fields: BTreeMap<String, Value>,
        /// The plugin's span that it happened in; 0 for none.
        #[serde(default)]
        span: u64,
        /// Where it belongs.
        #[serde(flatten)]
        labels: TelemetryLabels,
    },
    /// A span began.
    SpanOpened {
        /// Its number, unique among the plugin's open spans.
        id: u64,
        /// The plugin's span around it; 0 for none.
        #[serde(default)]
        parent: u64,
        /// Its name.
        name: String,
        /// `ERROR` to `TRACE`.
        level: String,
        /// The module or the name that the author gave.
        target: String,
        /// What was recorded at its start.
        #[serde(default)]
        fields: BTreeMap<String, Value>,
        /// Where it belongs.
        #[serde(flatten)]
        labels: TelemetryLabels,
    },
    /// Values were added to a span.
    SpanRecorded {
        /// Its number.
        id: u64,
        /// The values.
        fields: BTreeMap<String, Value>,
    },
    /// A span ended.
    SpanClosed {
        /// Its number.
        id: u64,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Where an event belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TelemetryLabels {
    /// The sandbox type; empty where no call of one is running.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox_type: String,
    /// The sandbox; empty where no call of one is running.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// The call; 0 for none.
    pub call: u64,
    /// The host's span that the call belongs to; 0 for none.
    pub host_span: u64,
}

/// What a host does for a whole plugin.
pub trait HostServices: Send + Sync + 'static {
    /// Takes a log record. Quick, never blocks.
    fn telemetry(&self, record: Telemetry);
}

/// What a host does for one sandbox.
pub trait SandboxServices: Send + Sync + 'static {
    /// Returns which sandbox it is.
    fn identity(&self) -> SandboxIdentity;
    /// Adds an event to the sandbox's history. Quick, never blocks.
    fn event(&self, kind: String, data: Value);
    /// Sets one of the sandbox's metadata. Quick, never blocks.
    fn set_metadata(&self, key: String, value: Value);
    /// Says that the sandbox ended by itself. Quick, never blocks.
    fn exited(&self, reason: String);
    /// Stores the state document; durable when it returns.
    fn save_state(&self, state: State) -> impl Future<Output = Result<()>> + Send;
}

/// What a host does for a whole plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostServicesVTableRef, prefix_fields = HostServicesVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct HostServicesVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Takes a [`Telemetry`] document.
    pub telemetry: unsafe extern "C" fn(this: Instance, record: RString),
    /// Returns an interface by its id, for what nobody foresaw.
    #[sabi(last_prefix_field)]
    pub get_interface: unsafe extern "C" fn(this: Instance, id: RStr<'_>) -> ROption<Instance>,
}

/// What a host does for one sandbox.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(
    prefix_ref = SandboxServicesVTableRef,
    prefix_fields = SandboxServicesVTablePrefix
)))]
#[sabi(missing_field(option))]
pub struct SandboxServicesVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Returns a [`SandboxIdentity`] document.
    pub identity: unsafe extern "C" fn(this: Instance) -> RString,
    /// Takes `{"kind", "data"}`.
    pub event: unsafe extern "C" fn(this: Instance, event: RString),
    /// Takes `{"key", "value"}`.
    pub set_metadata: unsafe extern "C" fn(this: Instance, entry: RString),
    /// Takes `{"reason"}`.
    pub exited: unsafe extern "C" fn(this: Instance, exit: RString),
    /// Takes a [`State`] document; durable when the future ends.
    #[sabi(last_prefix_field)]
    pub save_state:
        unsafe extern "C" fn(this: Instance, state: RString) -> FfiFuture<RResult<(), Failure>>,
}

impl_vtable!(HostServicesVTableRef, HostServicesVTable);
impl_vtable!(SandboxServicesVTableRef, SandboxServicesVTable);

/// A host's services for a plugin, as they cross.
pub type HostServicesObject = Object<HostServicesVTableRef>;
/// A host's services for a sandbox, as they cross.
pub type SandboxServicesObject = Object<SandboxServicesVTableRef>;

#[derive(Serialize, Deserialize)]
struct EventDocument {
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Serialize, Deserialize)]
struct MetadataDocument {
    key: String,
    value: Value,
}

#[derive(Serialize, Deserialize)]
struct ExitedDocument {
    reason: String,
}

struct HostShim<T>(T);

impl<T: HostServices> HostShim<T> {
    const TABLE: HostServicesVTable = HostServicesVTable {
        release: shim::release::<T>,
        telemetry: Self::telemetry,
        get_interface: Self::get_interface,
    };
    vtable_ref!(HostServicesVTableRef);

    unsafe extern "C" fn telemetry(this: Instance, record: RString) {
        // SAFETY: `HostServicesObject::from_services` joins this table to a `T`.
        let host = unsafe { this.get::<T>() };
        shim::notify(&record, |record| host.telemetry(record));
    }

    unsafe extern "C" fn get_interface(_this: Instance, _id: RStr<'_>) -> ROption<Instance> {
        ROption::RNone
    }
}

struct ServicesShim<T>(T);

impl<T: SandboxServices> ServicesShim<T> {
    const TABLE: SandboxServicesVTable = SandboxServicesVTable {
        release: shim::release::<T>,
        identity: Self::identity,
        event: Self::event,
        set_metadata: Self::set_metadata,
        exited: Self::exited,
        save_state: Self::save_state,
    };
    vtable_ref!(SandboxServicesVTableRef);

    unsafe extern "C" fn identity(this: Instance) -> RString {
        // SAFETY: `SandboxServicesObject::from_services` joins this table to a `T`.
        let services = unsafe { this.get::<T>() };
        shim::document(|| services.identity())
    }

    unsafe extern "C" fn event(this: Instance, event: RString) {
        // SAFETY: `SandboxServicesObject::from_services` joins this table to a `T`.
        let services = unsafe { this.get::<T>() };
        shim::notify(&event, |event: EventDocument| {
            services.event(event.kind, event.data);
        });
    }

    unsafe extern "C" fn set_metadata(this: Instance, entry: RString) {
        // SAFETY: `SandboxServicesObject::from_services` joins this table to a `T`.
        let services = unsafe { this.get::<T>() };
        shim::notify(&entry, |entry: MetadataDocument| {
            services.set_metadata(entry.key, entry.value);
        });
    }

    unsafe extern "C" fn exited(this: Instance, exit: RString) {
        // SAFETY: `SandboxServicesObject::from_services` joins this table to a `T`.
        let services = unsafe { this.get::<T>() };
        shim::notify(&exit, |exit: ExitedDocument| {
            services.exited(exit.reason);
        });
    }

    unsafe extern "C" fn save_state(
        this: Instance,
        state: RString,
    ) -> FfiFuture<RResult<(), Failure>> {
        // SAFETY: `SandboxServicesObject::from_services` joins this table to a `T`.
        let services = unsafe { this.get::<T>() };
        shim::inline(async move { services.save_state(serde_json::from_str(&state)?).await })
    }
}

impl HostServicesObject {
    /// Makes the object that a host hands to [`PluginModule::init`](crate::abi::PluginModule).
    pub fn from_services<T: HostServices>(services: T) -> Self {
        // SAFETY: the table is the one for `T`.
        unsafe { Self::new(Arc::new(services), HostShim::<T>::REF) }
    }

    /// Hands a record to the host's log.
    pub fn telemetry(&self, record: &Telemetry) {
        if let Ok(text) = serde_json::to_string(record) {
            let entry = self.vtable().telemetry();
            // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
            unsafe {
                entry(self.instance(), text.into());
            }
        }
    }
}

impl SandboxServicesObject {
    /// Makes the object that a host hands to `create` and `recover`.
    pub fn from_services<T: SandboxServices>(services: T) -> Self {
        // SAFETY: the table is the one for `T`.
        unsafe { Self::new(Arc::new(services), ServicesShim::<T>::REF) }
    }

    /// Returns which sandbox it is.
    ///
    /// # Errors
    ///
    /// An answer that is no such document.
    pub fn identity(&self) -> Result<SandboxIdentity> {
        let entry = self.vtable().identity();
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
        let text = unsafe { entry(self.instance()) };
        shim::read_document(&text)
    }

    /// Adds an event to the sandbox's history.
    pub fn event(&self, kind: String, data: Value) {
        self.notify(self.vtable().event(), &EventDocument { kind, data });
    }

    /// Sets one of the sandbox's metadata.
    pub fn set_metadata(&self, key: String, value: Value) {
        self.notify(
            self.vtable().set_metadata(),
            &MetadataDocument { key, value },
        );
    }

    /// Says that the sandbox ended by itself.
    pub fn exited(&self, reason: String) {
        self.notify(self.vtable().exited(), &ExitedDocument { reason });
    }

    /// Stores the state document; durable when it returns.
    ///
    /// # Errors
    ///
    /// What the host answers; the caller must not go on to the side effect then.
    pub async fn save_state(&self, state: &State) -> Result<()> {
        let text = serde_json::to_string(state)?;
        let entry = self.vtable().save_state();
        // SAFETY: as for `identity`; the future keeps what it needs alive by itself.
        let future = unsafe { entry(self.instance(), text.into()) };
        shim::foreign(future, Ok::<(), Error>).await
    }

    fn notify(&self, entry: unsafe extern "C" fn(Instance, RString), document: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(document) {
            // SAFETY: every caller passes an entry of this object's vtable, and `self` keeps
            // the instance alive for the call.
            unsafe {
                entry(self.instance(), text.into());
            }
        }
    }
}
