//! The plugin as a whole: one registration, one runtime, one line to the host.

use std::{
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use abi_stable::{
    library::{CheckTypeLayout, IntoRootModuleResult, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
    std_types::{ROption, RResult, RStr, RString, RVec},
};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::{
    Backend, Error, PluginContext, Result, Tool,
    abi::{
        Failure, HostServicesObject, InitRequest, Instance, PluginModule, PluginModuleRef,
        SandboxTypeObject, ToolObject,
    },
    register::{
        logging::{self, LogFilter},
        panic::{self, catch},
        runtime::{self, Executor},
    },
};

/// What [`register_plugin!`](crate::register_plugin) registers.
#[doc(hidden)]
#[derive(Debug)]
pub struct Registration {
    pub manifest: &'static [u8],
    pub sandboxes: &'static [SandboxEntry],
    pub tools: &'static [ToolEntry],
}

macro_rules! entry {
    ($Entry:ident, $Object:ident, $Trait:ident) => {
        /// Opens one of what is registered.
        #[doc(hidden)]
        #[derive(Clone, Copy)]
        pub struct $Entry(fn(&PluginContext, Executor) -> Result<$Object>);

        impl $Entry {
            /// Makes the entry of a type.
            pub const fn of<T: $Trait>() -> Self {
                Self(|plugin, executor| Ok($Object::typed(T::open(plugin)?, executor)))
            }
        }

        impl fmt::Debug for $Entry {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($Entry))
            }
        }
    };
}

entry!(SandboxEntry, SandboxTypeObject, Backend);
entry!(ToolEntry, ToolObject, Tool);

/// What the macro registered; set by the library's constructor.
static REGISTRATION: OnceLock<&'static Registration> = OnceLock::new();
/// The plugin, once `init` succeeded.
static PLUGIN: OnceLock<Plugin> = OnceLock::new();

struct Plugin {
    filter: LogFilter,
    /// Taken by `shutdown`.
    runtime: Mutex<Option<Runtime>>,
    /// Taken by the host once `init` returned.
    sandbox_types: Mutex<Vec<SandboxTypeObject>>,
    tools: Mutex<Vec<ToolObject>>,
}

/// Returns the header that [`register_plugin!`](crate::register_plugin) exports.
#[doc(hidden)]
pub const fn root_header(constructor: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: the only constructors are expansions of `register_plugin!`, which return what
    // `module` returns: an erased `PluginModuleRef`.
    unsafe { LibHeader::from_constructor::<PluginModuleRef>(constructor, CheckTypeLayout::Yes) }
}

/// Builds the root module.
#[doc(hidden)]
pub fn module(registration: &'static Registration) -> RootModuleResult {
    // A second call registers the same: the macro can be used once in a library.
    let _ = REGISTRATION.set(registration);
    abi_stable::library::__call_root_module_loader(build)
}

fn build() -> impl IntoRootModuleResult<Module = PluginModuleRef> {
    PluginModule {
        manifest,
        init,
        sandbox_types,
        tools,
        configure,
        get_interface,
        shutdown,
    }
    .leak_into_prefix()
}

unsafe extern "C" fn manifest() -> RString {
    let bytes = REGISTRATION
        .get()
        .map_or(&[][..], |registration| registration.manifest);
    String::from_utf8_lossy(bytes).into_owned().into()
}

unsafe extern "C" fn init(request: RStr<'_>, host: HostServicesObject) -> RResult<(), Failure> {
    contained(|| start(request.as_str(), host))
}

unsafe extern "C" fn sandbox_types() -> RVec<SandboxTypeObject> {
    hand_over(|plugin| &plugin.sandbox_types)
}

unsafe extern "C" fn tools() -> RVec<ToolObject> {
    hand_over(|plugin| &plugin.tools)
}

unsafe extern "C" fn configure(changes: RStr<'_>) -> RResult<(), Failure> {
    contained(|| {
        let changes: Changes = serde_json::from_str(changes.as_str())?;
        match changes.log_filter {
            Some(filter) => plugin()?.filter.set(&filter),
            None => Ok(()),
        }
    })
}

unsafe extern "C" fn get_interface(_id: RStr<'_>) -> ROption<Instance> {
    ROption::RNone
}

unsafe extern "C" fn shutdown(deadline_ms: u64) -> RResult<(), Failure> {
    contained(|| {
        let runtime = plugin()?
            .runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(Duration::from_millis(deadline_ms));
        }
        Ok(())
    })
}

/// What can change while the plugin runs; what it does not know it ignores.
#[derive(Deserialize)]
struct Changes {
    #[serde(default)]
    log_filter: Option<String>,
}

fn start(request: &str, host: HostServicesObject) -> Result<()> {
    let request: InitRequest = serde_json::from_str(request)?;
    let registration = REGISTRATION
        .get()
        .ok_or_else(|| Error::internal("the library's constructor did not run"))?;
    if PLUGIN.get().is_some() {
        return Err(Error::failed_precondition(
            "the plugin is initialised already",
        ));
    }
    let filter = logging::install(host, &request.log_filter)?;
    panic::install_hook();
    let runtime = runtime::build("boxyard-plugin", request.runtime_threads)?;
    let executor = Executor::new(runtime.handle().clone());
    let context = PluginContext::new(request);
    let opened = {
        // Authors may spawn in `open`.
        let _entered = runtime.enter();
        open(registration, &context, &executor)
    };
    let (sandbox_types, tools) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let plugin = Plugin {
        filter,
        runtime: Mutex::new(Some(runtime)),
        sandbox_types: Mutex::new(sandbox_types),
        tools: Mutex::new(tools),
    };
    PLUGIN
        .set(plugin)
        .map_err(|_| Error::internal("two threads initialise the plugin at once"))
}

/// Opens everything that is registered, each under a catch of its own.
fn open(
    registration: &Registration,
    context: &PluginContext,
    executor: &Executor,
) -> Result<(Vec<SandboxTypeObject>, Vec<ToolObject>)> {
    let mut sandbox_types = Vec::new();
    for SandboxEntry(open) in registration.sandboxes {
        sandbox_types.push(catch(|| open(context, executor.clone())).flatten_result()?);
    }
    let mut tools = Vec::new();
    for ToolEntry(open) in registration.tools {
        tools.push(catch(|| open(context, executor.clone())).flatten_result()?);
    }
    Ok((sandbox_types, tools))
}

fn plugin() -> Result<&'static Plugin> {
    PLUGIN
        .get()
        .ok_or_else(|| Error::failed_precondition("the plugin is not initialised"))
}

fn hand_over<T: 'static>(of: impl FnOnce(&'static Plugin) -> &'static Mutex<Vec<T>>) -> RVec<T> {
    let objects = PLUGIN.get().map(|plugin| {
        std::mem::take(&mut *of(plugin).lock().unwrap_or_else(PoisonError::into_inner))
    });
    objects.unwrap_or_default().into()
}

fn contained(work: impl FnOnce() -> Result<()>) -> RResult<(), Failure> {
    catch(work).flatten_result().map_err(Failure::from).into()
}

/// `Result::flatten`, which is newer than the oldest supported compiler.
trait FlattenResult<T> {
    fn flatten_result(self) -> Result<T>;
}

impl<T> FlattenResult<T> for Result<Result<T>> {
    fn flatten_result(self) -> Result<T> {
        self.and_then(|inner| inner)
    }
}
