//! An owned value of the other side: a pointer that only its maker looks behind, and a vtable.

use std::{fmt, sync::Arc};

use abi_stable::StableAbi;

/// A pointer that the side which made it, and only that side, looks behind.
#[repr(transparent)]
#[derive(Clone, Copy, StableAbi)]
pub struct Instance(*mut ());

// SAFETY: the pointer is only ever made by `Instance::new`, from an `Arc` of a type that is
// `Send + Sync`, and only turned back by the shims of the same vtable.
unsafe impl Send for Instance {}
// SAFETY: as for `Send`.
unsafe impl Sync for Instance {}

impl Instance {
    /// Erases a value; it lives until [`Instance::release`].
    pub(crate) fn new<T: Send + Sync + 'static>(value: Arc<T>) -> Self {
        Self(Arc::into_raw(value).cast_mut().cast())
    }

    /// Borrows the value for as long as the returned handle lives.
    ///
    /// # Safety
    ///
    /// The instance was made by `Instance::new::<T>` in this library and is not released.
    pub(crate) unsafe fn get<T: Send + Sync + 'static>(self) -> Arc<T> {
        let pointer = self.0.cast_const().cast::<T>();
        // SAFETY: by this function's contract the pointer came from `Arc::into_raw` of an
        // `Arc<T>` whose count the unreleased instance still holds.
        unsafe { Arc::increment_strong_count(pointer) };
        // SAFETY: the count raised above is the one that this `Arc` takes over.
        unsafe { Arc::from_raw(pointer) }
    }

    /// Takes the value back.
    ///
    /// # Safety
    ///
    /// As [`Instance::get`], and nothing uses the instance afterwards.
    pub(crate) unsafe fn release<T: Send + Sync + 'static>(self) -> Arc<T> {
        // SAFETY: by this function's contract the instance still holds the count that
        // `Arc::into_raw` left, and gives it up here.
        unsafe { Arc::from_raw(self.0.cast_const().cast()) }
    }
}

/// A table of functions over an [`Instance`], the first of which gives it back.
pub trait VTable: Copy + Send + Sync + StableAbi + 'static {
    /// Returns the entry that releases an instance.
    fn release_entry(self) -> unsafe extern "C" fn(Instance);
}

/// An owned value that lives on the side that made it; dropping it releases the value.
#[repr(C)]
#[derive(StableAbi)]
pub struct Object<V: VTable> {
    instance: Instance,
    vtable: V,
}

impl<V: VTable> Object<V> {
    /// Joins a value to a vtable.
    ///
    /// # Safety
    ///
    /// Every entry of the vtable takes its instance for a `T` made by this library.
    pub(crate) unsafe fn new<T: Send + Sync + 'static>(value: Arc<T>, vtable: V) -> Self {
        Self {
            instance: Instance::new(value),
            vtable,
        }
    }

    /// Returns the instance, to pass to an entry of [`Object::vtable`] while `self` lives.
    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    /// Returns the table of functions.
    pub(crate) fn vtable(&self) -> V {
        self.vtable
    }
}

impl<V: VTable> Drop for Object<V> {
    fn drop(&mut self) {
        let release = self.vtable.release_entry();
        // SAFETY: an object is only made with the vtable of its instance's type, is not
        // `Clone`, and drops once; releasing entries do not unwind.
        unsafe {
            release(self.instance);
        }
    }
}

impl<V: VTable> fmt::Debug for Object<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({:p})", self.instance.0)
    }
}

/// Defines the associated constant `REF`: the vtable of a generic implementation, as a
/// reference to promoted memory.
macro_rules! vtable_ref {
    ($reference:ident) => {
        const WITH_METADATA: &'static ::abi_stable::prefix_type::WithMetadata<
            <$reference as $crate::abi::object::TableOf>::Table,
        > = &::abi_stable::prefix_type::WithMetadata::new(Self::TABLE);
        const REF: $reference = $reference(Self::WITH_METADATA.static_as_prefix());
    };
}
pub(crate) use vtable_ref;

/// Names the table behind a reference, for [`vtable_ref`].
pub(crate) trait TableOf {
    type Table;
}

/// Implements [`VTable`] for a prefix reference whose table has a `release` entry.
macro_rules! impl_vtable {
    ($reference:ident, $table:ident) => {
        impl $crate::abi::VTable for $reference {
            fn release_entry(self) -> unsafe extern "C" fn($crate::abi::Instance) {
                self.release()
            }
        }

        impl $crate::abi::object::TableOf for $reference {
            type Table = $table;
        }
    };
}
pub(crate) use impl_vtable;
