//! Panics of author code: caught at every poll and every drop, and logged.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use crate::{Error, ErrorCode, Result};

/// The target of the events that tell of panics.
pub(crate) const PANIC_TARGET: &str = "panic";

thread_local! {
    /// Where this thread's last panic was; the hook knows it, the payload does not.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic in it becomes an error with its message and place.
///
/// # Errors
///
/// [`ErrorCode::PANICKED`].
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T> {
    // What an author's own catch swallowed says nothing about the next panic. A catch within
    // a drop that a panic runs leaves that panic's place alone.
    if !std::thread::panicking() {
        let _ = LAST.try_with(|last| last.borrow_mut().take());
    }
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let message = text_of(&*payload)
            .unwrap_or("a value that is no text")
            .to_owned();
        // A payload's own drop may panic: odd ones are forgotten.
        if text_of(&*payload).is_none() {
            std::mem::forget(payload);
        }
        let place = LAST.with(|last| last.borrow_mut().take());
        Error::new(
            ErrorCode::PANICKED,
            match place {
                Some(place) => format!("panicked at {place}: {message}"),
                None => format!("panicked: {message}"),
            },
        )
    })
}

fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Makes this library's panics go to the host's log instead of standard error.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = text_of(info.payload()).unwrap_or("a value that is no text");
        tracing::error!(target: PANIC_TARGET, %place, "{message}");
        // The thread may be ending, and its locals with it.
        let _ = LAST.try_with(|last| *last.borrow_mut() = Some(place));
    }));
}

/// A future of author code: neither its poll nor its drop lets a panic out.
pub(crate) struct Contained<F>(ManuallyDrop<F>);

impl<F> Contained<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(ManuallyDrop::new(future))
    }
}

impl<T, F: Future<Output = Result<T>>> Future for Contained<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        // SAFETY: the future is never moved out of `self`: it is pinned as long as `self` is,
        // and dropped in place.
        let future = unsafe { self.map_unchecked_mut(|contained| &mut *contained.0) };
        match catch(|| future.poll(context)) {
            Ok(poll) => poll,
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        // The hook has logged a panic in here; there is nobody to return it to.
        let _ = catch(|| {
            // SAFETY: this is the only place that drops the future, and it runs once.
            unsafe {
                ManuallyDrop::drop(&mut self.0);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let error = catch(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PANICKED);
        assert!(error.message().contains("number 7"), "{error}");
    }

    #[test]
    fn a_payload_whose_drop_panics_is_forgotten() {
        let error = catch(|| std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PANICKED);
    }

    #[tokio::test]
    async fn a_future_that_panics_in_poll_or_drop_is_contained() {
        let polled: Result<()> = Contained::new(async { panic!("in poll") }).await;
        assert!(polled.unwrap_err().message().contains("in poll"));
        let bomb = Bomb;
        drop(Contained::new(async move {
            let _bomb = bomb;
            Ok::<(), Error>(())
        }));
    }
}
