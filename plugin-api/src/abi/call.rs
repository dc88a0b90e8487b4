//! A call's context as it crosses.

use std::{future::Future, sync::Arc};

use abi_stable::StableAbi;
use async_ffi::FfiFuture;
use tokio_util::sync::CancellationToken;

use crate::abi::{
    Instance, Object,
    object::{impl_vtable, vtable_ref},
};
use crate::register::shim;

/// The context of a call, made by the caller and given to every async entry. Frozen for 1.x.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Call {
    /// Names the call in logs; unique in the caller's process.
    pub id: u64,
    /// How long the caller will wait, in milliseconds; `u64::MAX` for as long as it takes.
    pub remaining_ms: u64,
    /// The caller's span that the call belongs to; 0 for none.
    pub span: u64,
    /// Tells whether the caller still wants the answer.
    pub cancellation: Object<CallVTableRef>,
}

/// Tells whether the caller still wants the answer.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = CallVTableRef, prefix_fields = CallVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct CallVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Returns whether the caller asked to stop.
    pub is_cancelled: unsafe extern "C" fn(this: Instance) -> bool,
    /// Waits until the caller asks to stop.
    #[sabi(last_prefix_field)]
    pub cancelled: unsafe extern "C" fn(this: Instance) -> FfiFuture<()>,
}

impl_vtable!(CallVTableRef, CallVTable);

struct TokenShim;

impl TokenShim {
    const TABLE: CallVTable = CallVTable {
        release: shim::release::<CancellationToken>,
        is_cancelled: Self::is_cancelled,
        cancelled: Self::cancelled,
    };
    vtable_ref!(CallVTableRef);

    unsafe extern "C" fn is_cancelled(this: Instance) -> bool {
        // SAFETY: `Object::from_token` joins this table to a token.
        let token = unsafe { this.get::<CancellationToken>() };
        token.is_cancelled()
    }

    unsafe extern "C" fn cancelled(this: Instance) -> FfiFuture<()> {
        // SAFETY: `Object::from_token` joins this table to a token.
        let token = unsafe { this.get::<CancellationToken>() };
        // A token's future neither panics nor holds author code.
        FfiFuture::new(async move { token.cancelled().await })
    }
}

impl Object<CallVTableRef> {
    pub(crate) fn from_token(token: CancellationToken) -> Self {
        // SAFETY: the table is the one for tokens.
        unsafe { Self::new(Arc::new(token), TokenShim::REF) }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        let entry = self.vtable().is_cancelled();
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call.
        unsafe { entry(self.instance()) }
    }

    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        let entry = self.vtable().cancelled();
        // SAFETY: as for `is_cancelled`; the future keeps what it needs alive by itself.
        unsafe { entry(self.instance()) }
    }
}
