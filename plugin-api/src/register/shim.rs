//! The trampolines: documents in and out, futures contained, runtimes entered.

use std::{future::Future, pin::Pin, sync::Arc};

use abi_stable::std_types::{RResult, RString};
use async_ffi::FfiFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Call, Error, Result,
    abi::{Failure, Instance},
    register::{
        panic::{Contained, catch},
        runtime::Executor,
    },
};

/// A JSON document or a failure.
pub(crate) type Reply = RResult<RString, Failure>;

/// The `release` entry of a value whose drop runs no author code.
///
/// # Safety
///
/// As [`Instance::release`].
pub(crate) unsafe extern "C" fn release<T: Send + Sync + 'static>(this: Instance) {
    // SAFETY: by this function's contract.
    let value: Arc<T> = unsafe { this.release() };
    // A panic was logged by the hook; there is nobody to return it to.
    let _ = catch(|| drop(value));
}

/// Runs `work` on whichever thread polls the future.
pub(crate) fn inline<T>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> FfiFuture<RResult<T, Failure>> {
    let contained = Contained::new(work);
    FfiFuture::new(async move { contained.await.map_err(Failure::from).into() })
}

/// Runs `work` on a runtime of this side and answers a document.
pub(crate) fn on_runtime<Response, Fut>(
    executor: &Executor,
    call: Call,
    work: impl FnOnce(Call) -> Fut + Send + 'static,
) -> FfiFuture<Reply>
where
    Response: Serialize,
    Fut: Future<Output = Result<Response>> + Send,
{
    let (id, span) = (call.id(), call.span());
    let task = executor.spawn_call(id, span, async move {
        let response = work(call).await?;
        Ok(serde_json::to_string(&response)?)
    });
    FfiFuture::new(async move {
        task.answer()
            .await
            .map(RString::from)
            .map_err(Failure::from)
            .into()
    })
}

/// Runs `work` on a runtime of this side and answers what `convert` makes of its result.
pub(crate) fn on_runtime_with<T, R, Fut>(
    executor: &Executor,
    call: Call,
    convert: impl FnOnce(T) -> Result<R> + Send + 'static,
    work: impl FnOnce(Call) -> Fut + Send + 'static,
) -> FfiFuture<RResult<R, Failure>>
where
    T: Send + 'static,
    Fut: Future<Output = Result<T>> + Send,
{
    let (id, span) = (call.id(), call.span());
    let task = executor.spawn_call(id, span, async move { work(call).await });
    FfiFuture::new(async move {
        task.answer()
            .await
            .and_then(convert)
            .map_err(Failure::from)
            .into()
    })
}

/// A document, or what went wrong while it was made.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Document<T> {
    Ok(T),
    Error(Error),
}

/// Returns a document from a plain entry.
pub(crate) fn document<T: Serialize>(make: impl FnOnce() -> T) -> RString {
    let document = match catch(make) {
        Ok(value) => Document::Ok(value),
        Err(error) => Document::Error(error),
    };
    // Only a type that has no JSON form fails here; the reader reports an empty document.
    serde_json::to_string(&document).unwrap_or_default().into()
}

/// Reads what [`document`] wrote.
pub(crate) fn read_document<T: DeserializeOwned>(text: &str) -> Result<T> {
    match serde_json::from_str(text)
        .map_err(|error| Error::internal(format_args!("document: {error}")))?
    {
        Document::Ok(value) => Ok(value),
        Document::Error(error) => Err(error),
    }
}

/// Passes a document that needs no answer on; one that cannot be read is dropped.
pub(crate) fn notify<T: DeserializeOwned>(text: &str, deliver: impl FnOnce(T)) {
    if let Ok(document) = serde_json::from_str(text) {
        // A panic was logged by the hook; there is nobody to return it to.
        let _ = catch(|| deliver(document));
    }
}

/// Waits for the other side's answer; a panic over there is an error here.
pub(crate) fn foreign<R, T>(
    future: FfiFuture<RResult<R, Failure>>,
    convert: impl FnOnce(R) -> Result<T> + Send,
) -> impl Future<Output = Result<T>> + Send {
    Contained::new(async move {
        match future.await {
            RResult::ROk(value) => convert(value),
            RResult::RErr(failure) => Err(failure.into()),
        }
    })
}

/// The answer to come of a call to the other side.
pub type CallFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Makes a request of a document and reads the answer.
pub(crate) fn request<Response: DeserializeOwned + 'static>(
    request: &(impl Serialize + ?Sized),
    send: impl FnOnce(RString) -> FfiFuture<Reply>,
) -> CallFuture<Response> {
    request_with(request, send, |text| {
        serde_json::from_str(&text)
            .map_err(|error| Error::internal(format_args!("the answer is malformed: {error}")))
    })
}

/// Makes a request of a document and converts the answer.
pub(crate) fn request_with<R: 'static, T: 'static>(
    request: &(impl Serialize + ?Sized),
    send: impl FnOnce(RString) -> FfiFuture<RResult<R, Failure>>,
    convert: impl FnOnce(R) -> Result<T> + Send + 'static,
) -> CallFuture<T> {
    match serde_json::to_string(request) {
        Ok(text) => Box::pin(foreign(send(text.into()), convert)),
        Err(error) => Box::pin(async move { Err(error.into()) }),
    }
}
