//! The root of a plugin.

use abi_stable::{
    StableAbi,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr, RString, RVec},
};

use crate::abi::{Failure, HostServicesObject, Instance, SandboxTypeObject, ToolObject};

/// The root of a plugin: what its library exports.
///
/// Entries are called from threads of the host's own, never from an async task, in this
/// order: `manifest`, `init` once, then anything else, `shutdown` last.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef, prefix_fields = PluginModulePrefix)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// Returns the manifest, byte for byte as the library embeds it.
    pub manifest: unsafe extern "C" fn() -> RString,
    /// Takes an [`InitRequest`](crate::abi::InitRequest) and starts the plugin.
    pub init:
        unsafe extern "C" fn(request: RStr<'_>, host: HostServicesObject) -> RResult<(), Failure>,
    /// Hands over the sandbox types, as the manifest lists them; empty the second time.
    pub sandbox_types: unsafe extern "C" fn() -> RVec<SandboxTypeObject>,
    /// Hands over the tools, as the manifest lists them; empty the second time.
    pub tools: unsafe extern "C" fn() -> RVec<ToolObject>,
    /// Takes changes while the plugin runs: an object of which unknown keys are ignored.
    pub configure: unsafe extern "C" fn(changes: RStr<'_>) -> RResult<(), Failure>,
    /// Returns an interface by its id, for what nobody foresaw.
    pub get_interface: unsafe extern "C" fn(id: RStr<'_>) -> ROption<Instance>,
    /// Ends the plugin's runtime; tasks that overrun the deadline are left behind.
    #[sabi(last_prefix_field)]
    pub shutdown: unsafe extern "C" fn(deadline_ms: u64) -> RResult<(), Failure>,
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "boxyard_plugin";
    const NAME: &'static str = "boxyard_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// Defines a safe call for each entry.
macro_rules! calls {
    ($($(#[$doc:meta])* $call:ident = $entry:ident($($argument:ident: $Argument:ty),*) -> $Answer:ty;)*) => {
        impl PluginModuleRef {
            $($(#[$doc])*
            pub fn $call(self, $($argument: $Argument),*) -> $Answer {
                let entry = self.$entry();
                // SAFETY: whoever made this reference checked the layout of the module, and
                // libraries are never unloaded.
                unsafe { entry($($argument),*) }
            })*
        }
    };
}

calls! {
    /// Returns the manifest, as the loaded code has it.
    call_manifest = manifest() -> RString;
    /// Starts the plugin; blocks, and may take as long as the plugin likes.
    call_init = init(request: RStr<'_>, host: HostServicesObject) -> RResult<(), Failure>;
    /// Hands over the sandbox types.
    call_sandbox_types = sandbox_types() -> RVec<SandboxTypeObject>;
    /// Hands over the tools.
    call_tools = tools() -> RVec<ToolObject>;
    /// Passes on changes, such as `{"log_filter": "debug"}`.
    call_configure = configure(changes: RStr<'_>) -> RResult<(), Failure>;
    /// Returns an interface by its id.
    call_get_interface = get_interface(id: RStr<'_>) -> ROption<Instance>;
    /// Ends the plugin; blocks up to about the deadline.
    call_shutdown = shutdown(deadline_ms: u64) -> RResult<(), Failure>;
}
