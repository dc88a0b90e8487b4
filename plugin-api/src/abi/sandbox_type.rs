//! A sandbox type as it crosses.

use std::{future::Future, sync::Arc};

use abi_stable::{
    StableAbi,
    std_types::{ROption, RResult, RString},
};
use async_ffi::FfiFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Backend, Call, Error, Health, Recovered, Result, SandboxContext, SandboxHandle,
    SandboxTypeDescriptor, State, SweepRequest, Swept,
    abi::{
        self, Failure, Instance, Object, SandboxObject, SandboxServicesObject,
        object::{impl_vtable, vtable_ref},
    },
    descriptor::schema_of,
    register::{
        runtime::{Executor, for_sandbox},
        shim::{self, CallFuture, Reply},
    },
};

/// One sandbox type: describes, probes, makes, recovers and sweeps.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(
    prefix_ref = SandboxTypeVTableRef,
    prefix_fields = SandboxTypeVTablePrefix
)))]
#[sabi(missing_field(option))]
pub struct SandboxTypeVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Returns a [`SandboxTypeDescriptor`] document; the same at every call.
    pub describe: unsafe extern "C" fn(this: Instance) -> RString,
    /// Answers a [`Health`] document.
    pub probe: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Makes a sandbox from a configuration that its schema accepts.
    pub create: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        config: RString,
        services: SandboxServicesObject,
    ) -> FfiFuture<RResult<SandboxObject, Failure>>,
    /// Finds a sandbox again from its [`State`] document; nothing where it is gone.
    pub recover: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        state: RString,
        services: SandboxServicesObject,
    ) -> FfiFuture<RResult<ROption<SandboxObject>, Failure>>,
    /// Takes a [`SweepRequest`] document, answers a [`Swept`] one.
    #[sabi(last_prefix_field)]
    pub sweep: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
}

impl_vtable!(SandboxTypeVTableRef, SandboxTypeVTable);

/// A sandbox type that lives on the side that made it.
pub type SandboxTypeObject = Object<SandboxTypeVTableRef>;

/// A sandbox type without its types: what [`Backend`] becomes, and what a proxy implements.
pub trait DynBackend: Send + Sync + 'static {
    /// Describes the type; the same at every call.
    fn describe(&self) -> SandboxTypeDescriptor;
    /// Does [`Backend::probe`].
    fn probe(&self, call: &Call) -> impl Future<Output = Result<Health>> + Send;
    /// Does [`Backend::create`].
    fn create(
        &self,
        config: Value,
        services: SandboxServicesObject,
        call: &Call,
    ) -> impl Future<Output = Result<SandboxObject>> + Send;
    /// Does [`Backend::recover`].
    fn recover(
        &self,
        state: State,
        services: SandboxServicesObject,
        call: &Call,
    ) -> impl Future<Output = Result<Option<SandboxObject>>> + Send;
    /// Does [`Backend::sweep`].
    fn sweep(
        &self,
        request: SweepRequest,
        call: &Call,
    ) -> impl Future<Output = Result<Swept>> + Send;
}

/// A [`Backend`] as a [`DynBackend`].
struct Typed<B> {
    backend: B,
    executor: Executor,
}

impl<B: Backend> Typed<B> {
    fn context(&self, services: SandboxServicesObject) -> Result<SandboxContext> {
        SandboxContext::new(services, B::TYPE, self.executor.clone())
    }

    fn erase(&self, sandbox: B::Sandbox, context: &SandboxContext) -> SandboxObject {
        SandboxObject::on(sandbox, self.executor.for_sandbox(B::TYPE, context.id()))
    }
}

impl<B: Backend> DynBackend for Typed<B> {
    fn describe(&self) -> SandboxTypeDescriptor {
        SandboxTypeDescriptor {
            name: crate::canonical_type_name(B::TYPE),
            description: B::DESCRIPTION.into(),
            isolation: B::ISOLATION,
            capabilities: B::CAPABILITIES.iter().map(ToString::to_string).collect(),
            config_schema: schema_of::<B::Config>(),
        }
    }

    async fn probe(&self, call: &Call) -> Result<Health> {
        self.backend.probe(call).await
    }

    async fn create(
        &self,
        config: Value,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<SandboxObject> {
        let config = typed_document(config)
            .map_err(|error| error.context(format_args!("configuration of `{}`", B::TYPE)))?;
        let context = self.context(services)?;
        let create = self.backend.create(config, context.clone(), call);
        let sandbox = for_sandbox(context.id(), create).await?;
        Ok(self.erase(sandbox, &context))
    }

    async fn recover(
        &self,
        state: State,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<Option<SandboxObject>> {
        let context = self.context(services)?;
        let recover = self.backend.recover(state, context.clone(), call);
        match for_sandbox(context.id(), recover).await? {
            Recovered::Running(sandbox) => Ok(Some(self.erase(sandbox, &context))),
            Recovered::Gone => Ok(None),
        }
    }

    async fn sweep(&self, request: SweepRequest, call: &Call) -> Result<Swept> {
        self.backend.sweep(request, call).await
    }
}

/// Reads an author's type from a document that its schema accepted; a type without fields
/// takes the empty object.
pub(crate) fn typed_document<T: DeserializeOwned>(document: Value) -> Result<T> {
    match document {
        Value::Object(map) if map.is_empty() => serde_json::from_value(Value::Object(map))
            .or_else(|error| serde_json::from_value(Value::Null).map_err(|_| error.into())),
        document => Ok(serde_json::from_value(document)?),
    }
}

struct Live<B> {
    backend: B,
    executor: Executor,
}

impl<B: DynBackend> Live<B> {
    const TABLE: SandboxTypeVTable = SandboxTypeVTable {
        release: Self::release,
        describe: Self::describe,
        probe: Self::probe,
        create: Self::create,
        recover: Self::recover,
        sweep: Self::sweep,
    };
    vtable_ref!(SandboxTypeVTableRef);

    unsafe extern "C" fn release(this: Instance) {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`, and releases it once.
        let live = unsafe { this.release::<Self>() };
        live.executor.clone().drop_there(live);
    }

    unsafe extern "C" fn describe(this: Instance) -> RString {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        shim::document(|| live.backend.describe())
    }

    unsafe extern "C" fn probe(this: Instance, call: abi::Call) -> FfiFuture<Reply> {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime(&executor, call.into(), |call| async move {
            live.backend.probe(&call).await
        })
    }

    unsafe extern "C" fn create(
        this: Instance,
        call: abi::Call,
        config: RString,
        services: SandboxServicesObject,
    ) -> FfiFuture<RResult<SandboxObject, Failure>> {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime_with(&executor, call.into(), Ok, |call| async move {
            live.backend
                .create(serde_json::from_str(&config)?, services, &call)
                .await
        })
    }

    unsafe extern "C" fn recover(
        this: Instance,
        call: abi::Call,
        state: RString,
        services: SandboxServicesObject,
    ) -> FfiFuture<RResult<ROption<SandboxObject>, Failure>> {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime_with(
            &executor,
            call.into(),
            |found: Option<SandboxObject>| Ok(found.into()),
            |call| async move {
                live.backend
                    .recover(serde_json::from_str(&state)?, services, &call)
                    .await
            },
        )
    }

    unsafe extern "C" fn sweep(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<Reply> {
        // SAFETY: `SandboxTypeObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime(&executor, call.into(), |call| async move {
            live.backend
                .sweep(serde_json::from_str(&request)?, &call)
                .await
        })
    }
}

impl SandboxTypeObject {
    /// Erases a sandbox type whose methods run on the current tokio runtime; for proxies.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn from_backend(backend: impl DynBackend) -> Self {
        Self::on(backend, Executor::current())
    }

    pub(crate) fn typed<B: Backend>(backend: B, executor: Executor) -> Self {
        let executor = executor.for_sandbox(B::TYPE, "");
        Self::on(
            Typed {
                backend,
                executor: executor.clone(),
            },
            executor,
        )
    }

    fn on<B: DynBackend>(backend: B, executor: Executor) -> Self {
        // SAFETY: the table is the one for `Live<B>`.
        unsafe { Self::new(Arc::new(Live { backend, executor }), Live::<B>::REF) }
    }

    /// Returns the type's description.
    ///
    /// # Errors
    ///
    /// An answer that is no such document.
    pub fn describe(&self) -> Result<SandboxTypeDescriptor> {
        let entry = self.vtable().describe();
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
        let text = unsafe { entry(self.instance()) };
        shim::read_document(&text)
    }

    /// Does [`Backend::probe`].
    pub fn probe(&self, call: Call) -> CallFuture<Health> {
        let entry = self.vtable().probe();
        // SAFETY: as for `describe`; the future keeps what it needs alive by itself.
        let future = unsafe { entry(self.instance(), call.into()) };
        Box::pin(shim::foreign(future, |text| {
            serde_json::from_str(&text).map_err(Error::internal)
        }))
    }

    /// Does [`Backend::create`].
    pub fn create(
        &self,
        config: &Value,
        services: SandboxServicesObject,
        call: Call,
    ) -> CallFuture<SandboxHandle> {
        let entry = self.vtable().create();
        // SAFETY: as for `probe`.
        let future = unsafe {
            entry(
                self.instance(),
                call.into(),
                config.to_string().into(),
                services,
            )
        };
        Box::pin(shim::foreign(future, |object| {
            Ok(SandboxHandle::from(object))
        }))
    }

    /// Does [`Backend::recover`]; `None` where the sandbox is gone.
    pub fn recover(
        &self,
        state: &State,
        services: SandboxServicesObject,
        call: Call,
    ) -> CallFuture<Option<SandboxHandle>> {
        let entry = self.vtable().recover();
        shim::request_with(
            state,
            // SAFETY: as for `probe`.
            |state| unsafe { entry(self.instance(), call.into(), state, services) },
            |found| Ok(found.into_option().map(SandboxHandle::from)),
        )
    }

    /// Does [`Backend::sweep`].
    pub fn sweep(&self, request: &SweepRequest, call: Call) -> CallFuture<Swept> {
        let entry = self.vtable().sweep();
        shim::request(request, |request| {
            // SAFETY: as for `probe`.
            unsafe { entry(self.instance(), call.into(), request) }
        })
    }
}
