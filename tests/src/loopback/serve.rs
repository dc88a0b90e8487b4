//! What an end does for the other with an object of its own.

use std::sync::{Arc, Mutex, PoisonError};

use boxyard_host::{ByteSink, ByteSource, CommandIo, Controls, Error, plugin::Offer};
use boxyard_plugin_api::{
    Call, Result, SandboxHandle, SandboxIdentity, SandboxTypeDescriptor, ToolDescriptor,
    abi::{SandboxObject, SandboxServicesObject, SandboxTypeObject, ToolObject},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, from_value};

use super::{
    frame::MAX_BODY,
    peer::Asked,
    proxy::{RemoteSandbox, RemoteServices, sandbox_methods},
    remote::Remote,
    stream::{RemoteSink, RemoteSource},
};

/// An object in an end's table.
#[derive(Clone, Debug)]
pub(super) enum Exported {
    /// What a plugin offers, until it is asked for.
    Offer(Arc<Mutex<Option<Offer>>>),
    SandboxType(Arc<SandboxTypeObject>),
    Tool(Arc<ToolObject>),
    Sandbox(Arc<SandboxHandle>),
    Services(Arc<SandboxServicesObject>),
    Source(Arc<ByteSource>),
    Sink(Arc<ByteSink>),
}

impl From<SandboxHandle> for Exported {
    fn from(sandbox: SandboxHandle) -> Self {
        Self::Sandbox(Arc::new(sandbox))
    }
}

impl From<ByteSource> for Exported {
    fn from(source: ByteSource) -> Self {
        Self::Source(Arc::new(source))
    }
}

impl From<ByteSink> for Exported {
    fn from(sink: ByteSink) -> Self {
        Self::Sink(Arc::new(sink))
    }
}

/// What a request led to.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) value: Value,
    /// What the other end gets to use.
    pub(super) handing: Vec<Exported>,
    pub(super) body: Vec<u8>,
}

impl Served {
    fn document(value: &impl Serialize) -> Result<Self> {
        Ok(Self {
            value: serde_json::to_value(value)?,
            ..Self::default()
        })
    }

    fn handing(object: Exported) -> Self {
        Self {
            handing: vec![object],
            ..Self::default()
        }
    }
}

/// What a plugin offers, in the order in which the objects are handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Descriptions {
    pub(super) sandbox_types: Vec<SandboxTypeDescriptor>,
    pub(super) tools: Vec<ToolDescriptor>,
}

/// The parameters of `create` (`document` is the configuration) and of `recover` (the state).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Making<T> {
    pub(super) document: T,
    /// Which sandbox the services handed over are for.
    pub(super) identity: SandboxIdentity,
}

impl Exported {
    /// Answers a request.
    ///
    /// # Errors
    ///
    /// What the object answers, and a request that it does not know.
    pub(super) async fn serve(self, asked: Asked, call: Call) -> Result<Served> {
        match self {
            Self::Offer(offer) => take_offer(&offer),
            Self::SandboxType(object) => serve_type(&object, asked, call).await,
            Self::Tool(object) => serve_tool(&object, asked, call).await,
            Self::Sandbox(handle) => serve_sandbox(&handle, asked, call).await,
            Self::Services(services) => {
                services.save_state(&from_value(asked.params)?).await?;
                Ok(Served::default())
            }
            Self::Source(source) => {
                let max: usize = from_value(asked.params)?;
                let chunk = source.read(max.min(MAX_BODY)).await?;
                Ok(Served {
                    body: chunk.map_or_else(Vec::new, Into::into),
                    ..Served::default()
                })
            }
            Self::Sink(sink) => {
                match asked.method.as_str() {
                    "finish" => sink.finish().await?,
                    _ => sink.write(asked.body).await?,
                }
                Ok(Served::default())
            }
        }
    }

    /// Takes a note; one that cannot be read is dropped, as it is in process.
    pub(super) fn note(&self, method: &str, params: Value) {
        let Self::Services(services) = self else {
            return;
        };
        match method {
            "event" => {
                if let Ok((kind, data)) = from_value(params) {
                    services.event(kind, data);
                }
            }
            "set_metadata" => {
                if let Ok((key, value)) = from_value(params) {
                    services.set_metadata(key, value);
                }
            }
            "exited" => {
                if let Ok(reason) = from_value(params) {
                    services.exited(reason);
                }
            }
            _ => {}
        }
    }
}

fn take_offer(offer: &Mutex<Option<Offer>>) -> Result<Served> {
    let offer = offer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .ok_or_else(|| Error::failed_precondition("the offer was handed over already"))?;
    let describe_type = SandboxTypeObject::describe;
    let descriptions = Descriptions {
        sandbox_types: offer
            .sandbox_types
            .iter()
            .map(describe_type)
            .collect::<Result<_>>()?,
        tools: offer
            .tools
            .iter()
            .map(ToolObject::describe)
            .collect::<Result<_>>()?,
    };
    let types = offer.sandbox_types.into_iter();
    let tools = offer.tools.into_iter();
    Ok(Served {
        value: serde_json::to_value(descriptions)?,
        handing: types
            .map(|object| Exported::SandboxType(Arc::new(object)))
            .chain(tools.map(|object| Exported::Tool(Arc::new(object))))
            .collect(),
        body: Vec::new(),
    })
}

async fn serve_type(object: &SandboxTypeObject, asked: Asked, call: Call) -> Result<Served> {
    let mut handed = asked.handed.into_iter();
    match asked.method.as_str() {
        "probe" => Served::document(&object.probe(call).await?),
        "create" => {
            let making: Making<Value> = from_value(asked.params)?;
            let services = services(&mut handed, making.identity)?;
            let made = object.create(&making.document, services, call).await?;
            Ok(Served::handing(made.into()))
        }
        "recover" => {
            let making: Making<_> = from_value(asked.params)?;
            let services = services(&mut handed, making.identity)?;
            let found = object.recover(&making.document, services, call).await?;
            Ok(Served {
                handing: found.into_iter().map(Exported::from).collect(),
                ..Served::default()
            })
        }
        "sweep" => Served::document(&object.sweep(&from_value(asked.params)?, call).await?),
        method => Err(unknown(method)),
    }
}

async fn serve_tool(object: &ToolObject, asked: Asked, call: Call) -> Result<Served> {
    let sandbox = next(&mut asked.handed.into_iter())?;
    let sandbox = SandboxObject::from_sandbox(RemoteSandbox::from(sandbox));
    Served::document(&object.execute(&asked.params, sandbox, call).await?)
}

macro_rules! serve_methods {
    (
        plain: { $($plain:ident($($request:ident: $Request:ty)?) -> $Response:ty;)* }
        to_sink: { $($to_sink:ident($ToRequest:ty);)* }
        from_source: { $($from_source:ident($FromRequest:ty);)* }
    ) => {
        async fn serve_sandbox(handle: &SandboxHandle, asked: Asked, call: Call) -> Result<Served> {
            let mut handed = asked.handed.into_iter();
            match asked.method.as_str() {
                $(stringify!($plain) => {
                    $(let $request: $Request = from_value(asked.params)?;)?
                    Served::document(&handle.$plain($(&$request,)? call).await?)
                })*
                $(stringify!($to_sink) => {
                    let (request, to) = (document(asked.params)?, sink(&mut handed)?);
                    handle.$to_sink(&request, to, call).await?;
                    Ok(Served::default())
                })*
                $(stringify!($from_source) => {
                    let (request, from) = (document(asked.params)?, source(&mut handed)?);
                    handle.$from_source(&request, from, call).await?;
                    Ok(Served::default())
                })*
                "execute_command" => {
                    let io = CommandIo {
                        stdin: source(&mut handed)?,
                        stdout: sink(&mut handed)?,
                        stderr: sink(&mut handed)?,
                        controls: Controls::from_source(source(&mut handed)?),
                    };
                    let command = document(asked.params)?;
                    Served::document(&handle.execute_command(&command, io, call).await?)
                }
                method => Err(unknown(method)),
            }
        }
    };
}

sandbox_methods!(serve_methods);

fn document<T: DeserializeOwned>(params: Value) -> Result<T> {
    Ok(from_value(params)?)
}

fn next(handed: &mut impl Iterator<Item = Remote>) -> Result<Remote> {
    let missing = || Error::invalid_argument("an object that the method needs was not handed over");
    handed.next().ok_or_else(missing)
}

fn source(handed: &mut impl Iterator<Item = Remote>) -> Result<ByteSource> {
    Ok(ByteSource::new(RemoteSource::from(next(handed)?)))
}

fn sink(handed: &mut impl Iterator<Item = Remote>) -> Result<ByteSink> {
    Ok(ByteSink::new(RemoteSink::from(next(handed)?)))
}

fn services(
    handed: &mut impl Iterator<Item = Remote>,
    identity: SandboxIdentity,
) -> Result<SandboxServicesObject> {
    let services = RemoteServices::new(identity, next(handed)?);
    Ok(SandboxServicesObject::from_services(services))
}

fn unknown(method: &str) -> Error {
    Error::unsupported(format_args!("`{method}`"))
}
