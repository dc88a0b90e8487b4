//! A tool as it crosses.

use std::{future::Future, sync::Arc};

use abi_stable::{
    StableAbi,
    std_types::{RResult, RString},
};
use async_ffi::FfiFuture;
use serde_json::Value;

use crate::{
    Call, Result, SandboxHandle, Tool, ToolContext, ToolDescriptor,
    abi::{
        self, Failure, Instance, Object, SandboxObject,
        object::{impl_vtable, vtable_ref},
    },
    descriptor::{schema_of, typed_document},
    register::{
        runtime::Executor,
        shim::{self, CallFuture, Reply},
    },
};

/// One tool: describes itself and runs.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ToolVTableRef, prefix_fields = ToolVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct ToolVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Returns a [`ToolDescriptor`] document; the same at every call.
    pub describe: unsafe extern "C" fn(this: Instance) -> RString,
    /// Runs with parameters that its schema accepts; answers any JSON document.
    #[sabi(last_prefix_field)]
    pub execute: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        params: RString,
        sandbox: SandboxObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
}

impl_vtable!(ToolVTableRef, ToolVTable);

/// A tool that lives on the side that made it.
pub type ToolObject = Object<ToolVTableRef>;

/// A tool without its types: what [`Tool`] becomes, and what a proxy implements.
pub trait DynTool: Send + Sync + 'static {
    /// Describes the tool; the same at every call.
    fn describe(&self) -> ToolDescriptor;
    /// Does [`Tool::execute`].
    fn execute(
        &self,
        params: Value,
        sandbox: SandboxHandle,
        call: &Call,
    ) -> impl Future<Output = Result<Value>> + Send;
}

/// A [`Tool`] as a [`DynTool`].
struct Typed<T>(T);

impl<T: Tool> DynTool for Typed<T> {
    fn describe(&self) -> ToolDescriptor {
        ToolDescriptor {
            name: T::NAME.into(),
            description: T::DESCRIPTION.into(),
            sandbox_types: T::SANDBOX_TYPES
                .iter()
                .map(|name| crate::canonical_type_name(name))
                .collect(),
            parameters: schema_of::<T::Params>(),
        }
    }

    async fn execute(&self, params: Value, sandbox: SandboxHandle, call: &Call) -> Result<Value> {
        let params = typed_document(params)
            .map_err(|error| error.context(format_args!("parameters of `{}`", T::NAME)))?;
        let output = self
            .0
            .execute(params, ToolContext::new(sandbox, call), call)
            .await?;
        Ok(serde_json::to_value(output)?)
    }
}

struct Live<T> {
    tool: T,
    executor: Executor,
}

impl<T: DynTool> Live<T> {
    const TABLE: ToolVTable = ToolVTable {
        release: Self::release,
        describe: Self::describe,
        execute: Self::execute,
    };
    vtable_ref!(ToolVTableRef);

    unsafe extern "C" fn release(this: Instance) {
        // SAFETY: `ToolObject::on` joins this table to a `Self`, and releases it once.
        let live = unsafe { this.release::<Self>() };
        live.executor.clone().drop_there(live);
    }

    unsafe extern "C" fn describe(this: Instance) -> RString {
        // SAFETY: `ToolObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        shim::document(|| live.tool.describe())
    }

    unsafe extern "C" fn execute(
        this: Instance,
        call: abi::Call,
        params: RString,
        sandbox: SandboxObject,
    ) -> FfiFuture<Reply> {
        // SAFETY: `ToolObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime(&executor, call.into(), move |call| async move {
            live.tool
                .execute(serde_json::from_str(&params)?, sandbox.into(), &call)
                .await
        })
    }
}

impl ToolObject {
    /// Erases a tool that runs on the current tokio runtime; for proxies.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn from_tool(tool: impl DynTool) -> Self {
        Self::on(tool, Executor::current())
    }

    pub(crate) fn typed<T: Tool>(tool: T, executor: Executor) -> Self {
        Self::on(Typed(tool), executor)
    }

    fn on<T: DynTool>(tool: T, executor: Executor) -> Self {
        // SAFETY: the table is the one for `Live<T>`.
        unsafe { Self::new(Arc::new(Live { tool, executor }), Live::<T>::REF) }
    }

    /// Returns the tool's description.
    ///
    /// # Errors
    ///
    /// An answer that is no such document.
    pub fn describe(&self) -> Result<ToolDescriptor> {
        let entry = self.vtable().describe();
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
        let text = unsafe { entry(self.instance()) };
        shim::read_document(&text)
    }

    /// Does [`Tool::execute`].
    pub fn execute(&self, params: &Value, sandbox: SandboxObject, call: Call) -> CallFuture<Value> {
        let entry = self.vtable().execute();
        shim::request(params, |params| {
            // SAFETY: as for `describe`; the future keeps what it needs alive by itself.
            unsafe { entry(self.instance(), call.into(), params, sandbox) }
        })
    }
}
