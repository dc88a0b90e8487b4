//! Byte streams as they cross.

use std::{future::Future, sync::Arc};

use abi_stable::{
    StableAbi,
    std_types::{RResult, RVec},
};
use async_ffi::FfiFuture;

use crate::{
    Error, Result, Sink, Source,
    abi::{
        Failure, Instance, Object,
        object::{impl_vtable, vtable_ref},
    },
    register::shim,
    stream::Chunk,
};

/// Something that bytes are read from.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ByteSourceVTableRef, prefix_fields = ByteSourceVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct ByteSourceVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Waits for 1 to `max` bytes; none at all means the end.
    #[sabi(last_prefix_field)]
    pub read:
        unsafe extern "C" fn(this: Instance, max: u64) -> FfiFuture<RResult<RVec<u8>, Failure>>,
}

/// Something that bytes are written to.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ByteSinkVTableRef, prefix_fields = ByteSinkVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct ByteSinkVTable {
    /// Gives the instance back; without `finish` before, the stream is broken off.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Waits until the bytes are taken; `CLOSED` when nobody will take any more.
    pub write:
        unsafe extern "C" fn(this: Instance, bytes: RVec<u8>) -> FfiFuture<RResult<(), Failure>>,
    /// Says that the stream ends here.
    #[sabi(last_prefix_field)]
    pub finish: unsafe extern "C" fn(this: Instance) -> FfiFuture<RResult<(), Failure>>,
}

impl_vtable!(ByteSourceVTableRef, ByteSourceVTable);
impl_vtable!(ByteSinkVTableRef, ByteSinkVTable);

/// A source that lives on the side that made it.
pub type SourceObject = Object<ByteSourceVTableRef>;
/// A sink that lives on the side that made it.
pub type SinkObject = Object<ByteSinkVTableRef>;

struct SourceShim<T>(T);

impl<T: Source> SourceShim<T> {
    const TABLE: ByteSourceVTable = ByteSourceVTable {
        release: shim::release::<T>,
        read: Self::read,
    };
    vtable_ref!(ByteSourceVTableRef);

    unsafe extern "C" fn read(this: Instance, max: u64) -> FfiFuture<RResult<RVec<u8>, Failure>> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        // SAFETY: `SourceObject::from_source` joins this table to a `T`.
        let source = unsafe { this.get::<T>() };
        shim::inline(async move { source.read(max).await.map(RVec::from) })
    }
}

struct SinkShim<T>(T);

impl<T: Sink> SinkShim<T> {
    const TABLE: ByteSinkVTable = ByteSinkVTable {
        release: shim::release::<T>,
        write: Self::write,
        finish: Self::finish,
    };
    vtable_ref!(ByteSinkVTableRef);

    unsafe extern "C" fn write(this: Instance, bytes: RVec<u8>) -> FfiFuture<RResult<(), Failure>> {
        // SAFETY: `SinkObject::from_sink` joins this table to a `T`.
        let sink = unsafe { this.get::<T>() };
        shim::inline(async move { sink.write(Chunk::from(bytes)).await })
    }

    unsafe extern "C" fn finish(this: Instance) -> FfiFuture<RResult<(), Failure>> {
        // SAFETY: `SinkObject::from_sink` joins this table to a `T`.
        let sink = unsafe { this.get::<T>() };
        shim::inline(async move { sink.finish().await })
    }
}

impl SourceObject {
    pub(crate) fn from_source<T: Source>(source: T) -> Self {
        // SAFETY: the table is the one for `T`.
        unsafe { Self::new(Arc::new(source), SourceShim::<T>::REF) }
    }

    pub(crate) fn read(&self, max: usize) -> impl Future<Output = Result<Chunk>> + Send + use<> {
        let read = self.vtable().read();
        // SAFETY: the vtable belongs to the instance, which `self` keeps alive for the call;
        // the future keeps what it needs alive by itself.
        let future = unsafe { read(self.instance(), max as u64) };
        shim::foreign(future, |bytes| Ok(Chunk::from(bytes)))
    }
}

impl SinkObject {
    pub(crate) fn from_sink<T: Sink>(sink: T) -> Self {
        // SAFETY: the table is the one for `T`.
        unsafe { Self::new(Arc::new(sink), SinkShim::<T>::REF) }
    }

    pub(crate) fn write(&self, chunk: Chunk) -> impl Future<Output = Result<()>> + Send + use<> {
        let write = self.vtable().write();
        // SAFETY: as for `SourceObject::read`.
        let future = unsafe { write(self.instance(), chunk.into()) };
        shim::foreign(future, Ok::<(), Error>)
    }

    pub(crate) fn finish(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let finish = self.vtable().finish();
        // SAFETY: as for `SourceObject::read`.
        let future = unsafe { finish(self.instance()) };
        shim::foreign(future, Ok::<(), Error>)
    }
}
