//! The streams of a command as they cross.

use abi_stable::StableAbi;

use crate::{
    ByteSink, ByteSource, Controls,
    abi::{SinkObject, SourceObject},
};

/// The streams of a command. Frozen for 1.x: more kinds of control go through `controls`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct CommandIo {
    /// What the command reads.
    pub stdin: SourceObject,
    /// Where its standard output goes.
    pub stdout: SinkObject,
    /// Where its standard error goes.
    pub stderr: SinkObject,
    /// One JSON document a line: `{"signal":15}`, `{"resize":{"columns":80,"rows":24}}`.
    pub controls: SourceObject,
}

impl From<crate::CommandIo> for CommandIo {
    fn from(io: crate::CommandIo) -> Self {
        Self {
            stdin: io.stdin.into(),
            stdout: io.stdout.into(),
            stderr: io.stderr.into(),
            controls: io.controls.into_source().into(),
        }
    }
}

impl From<CommandIo> for crate::CommandIo {
    fn from(io: CommandIo) -> Self {
        Self {
            stdin: ByteSource::from(io.stdin),
            stdout: ByteSink::from(io.stdout),
            stderr: ByteSink::from(io.stderr),
            controls: Controls::from_source(io.controls.into()),
        }
    }
}
