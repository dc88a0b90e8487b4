//! Which libraries a host lets in: decided from the header, before their code runs.

#![expect(
    unsafe_code,
    reason = "headers are made here that no `register_plugin!` would make"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use abi_stable::{
    StableAbi,
    library::{
        AbiHeader, AbiHeaderRef, CheckTypeLayout, LibHeader, RootModule, RootModuleError,
        RootModuleResult,
    },
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr, RString, RVec},
};
use boxyard_plugin_api::abi::{
    Failure, HostServicesObject, Instance, PluginModuleRef, SandboxServicesObject,
    SandboxTypeObject, ToolObject,
    layout::{LayoutError, Older, open_root_module},
};

use crate::plugin;

/// Whether code of a library that is to be refused has run.
static REFUSED_CODE_RAN: AtomicBool = AtomicBool::new(false);

extern "C" fn construct_refused() -> RootModuleResult {
    REFUSED_CODE_RAN.store(true, Ordering::SeqCst);
    RResult::RErr(RootModuleError::Unwound)
}

extern "C" fn construct_in_vain() -> RootModuleResult {
    RResult::RErr(RootModuleError::Unwound)
}

/// Leaks a header whose root module is an `M`, and which is to be refused.
fn refused_header<M: RootModule>(check_layout: CheckTypeLayout) -> AbiHeaderRef {
    // SAFETY: the constructor never returns a module.
    let header = unsafe { LibHeader::from_constructor::<M>(construct_refused, check_layout) };
    reference(Box::leak(Box::new(header)))
}

fn reference(header: &'static LibHeader) -> AbiHeaderRef {
    // SAFETY: an `AbiHeaderRef` is a reference to the `AbiHeader` that a `LibHeader` begins with.
    unsafe { std::mem::transmute::<&'static LibHeader, AbiHeaderRef>(header) }
}

/// Another root module altogether.
mod foreign {
    #![expect(dead_code, reason = "only its layout is wanted")]

    use super::*;

    #[repr(C)]
    #[derive(StableAbi)]
    #[sabi(kind(Prefix(prefix_ref = OtherModuleRef, prefix_fields = OtherModulePrefix)))]
    #[sabi(missing_field(option))]
    pub(super) struct OtherModule {
        #[sabi(last_prefix_field)]
        manifest: unsafe extern "C" fn() -> RString,
    }

    impl RootModule for OtherModuleRef {
        abi_stable::declare_root_module_statics! {OtherModuleRef}
        const BASE_NAME: &'static str = "boxyard_plugin";
        const NAME: &'static str = "boxyard_plugin";
        const VERSION_STRINGS: VersionStrings = package_version_strings!();
    }
}

/// Defines a root module of the same name as ours, as another version of the API may have it.
macro_rules! another_version {
    ($(#[$doc:meta])* mod $module:ident, host: $Host:ty, appended: { $($appended:ident),* }) => {
        $(#[$doc])*
        mod $module {
            #![expect(dead_code, reason = "only its layout is wanted")]

            use super::*;

            #[repr(C)]
            #[derive(StableAbi)]
            #[sabi(kind(Prefix(prefix_ref = PluginModuleRef, prefix_fields = PluginModulePrefix)))]
            #[sabi(missing_field(option))]
            pub(super) struct PluginModule {
                manifest: unsafe extern "C" fn() -> RString,
                init: unsafe extern "C" fn(request: RStr<'_>, host: $Host) -> RResult<(), Failure>,
                sandbox_types: unsafe extern "C" fn() -> RVec<SandboxTypeObject>,
                tools: unsafe extern "C" fn() -> RVec<ToolObject>,
                configure: unsafe extern "C" fn(changes: RStr<'_>) -> RResult<(), Failure>,
                get_interface: unsafe extern "C" fn(id: RStr<'_>) -> ROption<Instance>,
                #[sabi(last_prefix_field)]
                shutdown: unsafe extern "C" fn(deadline_ms: u64) -> RResult<(), Failure>,
                $($appended: unsafe extern "C" fn() -> RString,)*
            }

            impl RootModule for PluginModuleRef {
                abi_stable::declare_root_module_statics! {PluginModuleRef}
                const BASE_NAME: &'static str = "boxyard_plugin";
                const NAME: &'static str = "boxyard_plugin";
                const VERSION_STRINGS: VersionStrings = package_version_strings!();
            }
        }
    };
}

another_version! {
    /// One parameter of one entry is an object of another kind.
    mod moved, host: SandboxServicesObject, appended: {}
}

another_version! {
    /// There is one entry more.
    mod newer, host: HostServicesObject, appended: { appended }
}

#[test]
fn the_right_header_is_accepted_whichever_side_is_older() {
    for older in [Older::Host, Older::Plugin] {
        let module = open_root_module(plugin::header(), older).unwrap();
        assert_eq!(
            module.call_manifest().as_bytes(),
            plugin::embedded_manifest()
        );
    }
}

#[test]
fn a_header_without_layout_is_refused_and_its_constructor_never_runs() {
    let header = refused_header::<PluginModuleRef>(CheckTypeLayout::No);
    refused(header, |error| *error == LayoutError::Unchecked);
}

#[test]
fn another_root_module_is_refused_and_its_constructor_never_runs() {
    refused(
        refused_header::<foreign::OtherModuleRef>(CheckTypeLayout::Yes),
        |error| matches!(error, LayoutError::Differs { message } if message.contains("OtherModule")),
    );
    refused(
        refused_header::<moved::PluginModuleRef>(CheckTypeLayout::Yes),
        |error| matches!(error, LayoutError::Differs { message } if message.contains("Services")),
    );
}

#[test]
fn a_refused_library_does_not_spoil_the_next() {
    let wrong = refused_header::<moved::PluginModuleRef>(CheckTypeLayout::Yes);
    assert!(open_root_module(wrong, Older::Host).is_err());
    assert!(open_root_module(plugin::header(), Older::Host).is_ok());
    assert!(open_root_module(wrong, Older::Host).is_err());
}

#[test]
fn a_header_of_another_abi_stable_is_refused() {
    let mut stranger = AbiHeader::VALUE;
    stranger.abi_major += 1;
    let stranger: &'static AbiHeader = Box::leak(Box::new(stranger));
    // SAFETY: as for `reference`; what follows the header is only read once it is compatible.
    let header = unsafe { std::mem::transmute::<&'static AbiHeader, AbiHeaderRef>(stranger) };
    refused(header, |error| matches!(error, LayoutError::Header { .. }));
}

#[test]
fn a_constructor_that_fails_is_an_error() {
    // SAFETY: the constructor never returns a module.
    let header = unsafe {
        LibHeader::from_constructor::<PluginModuleRef>(construct_in_vain, CheckTypeLayout::Yes)
    };
    let header = reference(Box::leak(Box::new(header)));
    let error = open_root_module(header, Older::Host).err().unwrap();
    assert!(
        matches!(error, LayoutError::Constructor { .. }),
        "{error:?}"
    );
}

#[test]
fn an_entry_appended_by_a_newer_plugin_is_fine_unless_the_host_needs_it_too() {
    // SAFETY: the constructor never returns a module.
    let header = unsafe {
        LibHeader::from_constructor::<newer::PluginModuleRef>(
            construct_in_vain,
            CheckTypeLayout::Yes,
        )
    };
    let header = reference(Box::leak(Box::new(header)));
    // The check is passed: the constructor was reached.
    let error = open_root_module(header, Older::Host).err().unwrap();
    assert!(
        matches!(error, LayoutError::Constructor { .. }),
        "{error:?}"
    );
    // Taken for the older side, it has an entry that this host would have to know.
    let error = open_root_module(header, Older::Plugin).err().unwrap();
    assert!(matches!(error, LayoutError::Differs { .. }), "{error:?}");
}

/// Checks that a header is refused for the expected reason, in both directions, and that no
/// code of its library runs.
fn refused(header: AbiHeaderRef, expected: impl Fn(&LayoutError) -> bool) {
    for older in [Older::Host, Older::Plugin] {
        let error = open_root_module(header, older).err().unwrap();
        assert!(expected(&error), "{error:?}");
        assert!(!REFUSED_CODE_RAN.load(Ordering::SeqCst), "{error:?}");
    }
}
