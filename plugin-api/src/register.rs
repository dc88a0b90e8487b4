//! [`register_plugin!`](crate::register_plugin) and what it stands on: the trampolines, the
//! panic catch, the plugin's runtime and the log bridge.

#![expect(
    unsafe_code,
    reason = "trampolines, pinning and the exported header live in this room"
)]

pub(crate) mod logging;
pub(crate) mod panic;
mod plugin;
pub(crate) mod runtime;
pub(crate) mod shim;

pub use panic::catch;
pub use plugin::{Registration, SandboxEntry, ToolEntry, module, root_header};
pub use shim::CallFuture;

pub use crate::manifest::ConstManifest;

/// What the expansion of [`register_plugin!`](crate::register_plugin) names.
#[doc(hidden)]
pub mod expansion {
    pub use abi_stable::library::{LibHeader, RootModuleResult};
}

/// Makes the crate a plugin: exports its manifest and its root module.
///
/// Name, version, description, authors and licence come from the package. Use it once, in a
/// crate with `crate-type = ["cdylib"]`.
///
/// ```text
/// register_plugin! { sandboxes: [LocalProcess], tools: [Hello] }
/// register_plugin! { tools: [Hello], min_host_api: "1.2.0" }
/// ```
#[macro_export]
macro_rules! register_plugin {
    (
        $(sandboxes: [$($Backend:ty),* $(,)?])?
        $(, tools: [$($Tool:ty),* $(,)?])?
        $(, min_host_api: $min_host_api:expr)? $(,)?
    ) => {
        $crate::__register_plugin! {
            [$($($Backend),*)?] [$($($Tool),*)?] [$($min_host_api)?]
        }
    };
    (tools: [$($Tool:ty),* $(,)?] $(, min_host_api: $min_host_api:expr)? $(,)?) => {
        $crate::__register_plugin! { [] [$($Tool),*] [$($min_host_api)?] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __register_plugin {
    ([$($Backend:ty),*] [$($Tool:ty),*] [$($min_host_api:expr)?]) => {
        const _: () = {
            const MANIFEST: $crate::register::ConstManifest = $crate::register::ConstManifest {
                name: ::core::env!("CARGO_PKG_NAME"),
                version: ::core::env!("CARGO_PKG_VERSION"),
                description: ::core::env!("CARGO_PKG_DESCRIPTION"),
                authors: ::core::env!("CARGO_PKG_AUTHORS"),
                license: ::core::env!("CARGO_PKG_LICENSE"),
                min_host_api: $crate::__first!($($min_host_api,)? $crate::MIN_HOST_API),
                sandbox_types: &[$((
                    <$Backend as $crate::Backend>::TYPE,
                    <$Backend as $crate::Backend>::ISOLATION,
                )),*],
                tools: &[$(<$Tool as $crate::Tool>::NAME),*],
                panic_abort: ::core::cfg!(panic = "abort"),
            };
            const LENGTH: usize = MANIFEST.text_len();

            #[unsafe(export_name = "BOXYARD_MANIFEST")]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__boxyard"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".boxyard"))]
            pub static BYTES: [u8; LENGTH] = MANIFEST.to_bytes();

            static REGISTRATION: $crate::register::Registration = $crate::register::Registration {
                manifest: &BYTES,
                sandboxes: &[$($crate::register::SandboxEntry::of::<$Backend>()),*],
                tools: &[$($crate::register::ToolEntry::of::<$Tool>()),*],
            };

            // The name under which abi_stable exports a root module.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: $crate::register::expansion::LibHeader =
                $crate::register::root_header(construct);

            extern "C" fn construct() -> $crate::register::expansion::RootModuleResult {
                $crate::register::module(&REGISTRATION)
            }
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:expr $(, $rest:expr)* $(,)?) => {
        $first
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_exported_name_is_the_one_that_abi_stable_looks_for() {
        assert_eq!(
            abi_stable::library::ROOT_MODULE_LOADER_NAME,
            "_1as_0lib_1header_0root_bmodule_bloader"
        );
    }
}
