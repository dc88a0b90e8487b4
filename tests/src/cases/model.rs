//! Random sequences of operations, beside a model of what must come of each.

use std::{collections::BTreeMap, time::Duration};

use boxyard_plugin_api::{Command, ErrorCode, MakeDirectory, RemovePath};
use proptest::{
    collection,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use tokio::{runtime::Handle, task::block_in_place};

use crate::{
    case::{Needs::SandboxType, cases},
    subject::{Live, Subject, call},
    verdict::{Finding, Outcome, check_eq},
};

cases! {
    "model-random-operations" "M1" Must SandboxType => random_operations { leaves_nothing: true, deadline: Duration::from_secs(90) };
}

/// How many sequences are run, and how many more to find the least that fails.
const SEQUENCES: u32 = 24;
const SHRINKS: u32 = 200;

#[derive(Clone, Debug)]
enum Operation {
    Start,
    Stop,
    Cleanup,
    /// Runs a command that ends with this exit code.
    Exit(u8),
    /// Appends to a file with a command.
    Append(Name, u8),
    /// Writes so many bytes, each this one.
    Write(Name, u8, u16),
    Read(Name),
    Remove(Name),
    List,
}

/// One of a few names, so that operations meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    A,
    B,
    /// One that shells and listings treat in their own way.
    Dotted,
}

impl Name {
    /// Its path, in a directory of the model's own.
    fn path(self) -> &'static str {
        match self {
            Self::A => "model/a",
            Self::B => "model/b b",
            Self::Dotted => "model/.c",
        }
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = || prop_oneof![Just(Name::A), Just(Name::B), Just(Name::Dotted)];
    prop_oneof![
        1 => Just(Operation::Start),
        1 => Just(Operation::Stop),
        1 => Just(Operation::Cleanup),
        2 => (0_u8..4).prop_map(Operation::Exit),
        4 => (name(), b'a'..=b'z').prop_map(|(name, byte)| Operation::Append(name, byte)),
        8 => (name(), b'a'..=b'z', 0_u16..2000)
            .prop_map(|(name, byte, size)| Operation::Write(name, byte, size)),
        8 => name().prop_map(Operation::Read),
        3 => name().prop_map(Operation::Remove),
        3 => Just(Operation::List),
    ]
}

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Created,
    Running,
    Ended,
}

/// What must be true of a sandbox.
struct Model<'a> {
    live: &'a Live,
    commands: bool,
    files: bool,
    stage: Stage,
    content: BTreeMap<Name, Vec<u8>>,
}

impl Model<'_> {
    async fn step(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Start if self.stage == Stage::Created => {
                self.live.start().await?;
                self.stage = Stage::Running;
            }
            // Hosts start a sandbox once.
            Operation::Start => {}
            Operation::Stop => {
                self.live.handle.stop(call()).await?;
                self.stage = Stage::Ended;
            }
            Operation::Cleanup => {
                self.live.handle.cleanup(call()).await?;
                self.stage = Stage::Ended;
            }
            Operation::Exit(code) if self.commands => {
                let ended = self.live.code(Command::shell(format!("exit {code}"))).await;
                check_eq!(
                    ended,
                    self.if_running(code.into()),
                    "a command when {:?}",
                    self.stage
                );
            }
            Operation::Append(name, byte) if self.commands => {
                let line = format!(
                    "mkdir -p model; printf {} >> '{}'",
                    char::from(byte),
                    name.path()
                );
                let ended = self.live.code(Command::shell(line)).await;
                check_eq!(ended, self.if_running(0), "a command when {:?}", self.stage);
                if self.stage == Stage::Running {
                    self.content.entry(name).or_default().push(byte);
                }
            }
            Operation::Write(..) | Operation::Read(_) | Operation::Remove(_) | Operation::List
                if self.files && self.stage == Stage::Running =>
            {
                self.file_step(operation).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn if_running(&self, code: i32) -> Result<i32, ErrorCode> {
        match self.stage {
            Stage::Running => Ok(code),
            Stage::Created | Stage::Ended => Err(ErrorCode::FAILED_PRECONDITION),
        }
    }

    async fn file_step(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Write(name, byte, size) => {
                let content = vec![byte; size.into()];
                self.live.write(name.path(), content.clone()).await?;
                self.content.insert(name, content);
            }
            Operation::Read(name) => {
                let found = self
                    .live
                    .read(name.path())
                    .await
                    .map_err(|error| error.code());
                let expected = self.content.get(&name).cloned().ok_or(ErrorCode::NOT_FOUND);
                let [found, expected] = [found, expected].map(shown);
                check_eq!(found, expected, "what is in `{}`", name.path());
            }
            Operation::Remove(name) => {
                let request = RemovePath::new(name.path());
                let removed = self.live.handle.remove(&request, call()).await;
                let expected = self
                    .content
                    .remove(&name)
                    .map(drop)
                    .ok_or(ErrorCode::NOT_FOUND);
                check_eq!(
                    removed.map_err(|error| error.code()),
                    expected,
                    "removing `{}`",
                    name.path()
                );
            }
            Operation::List => {
                let entries = self.live.handle.list("model", call()).await?;
                let names = entries
                    .into_iter()
                    .map(|entry| format!("model/{}", entry.name));
                let mut found: Vec<_> = names.collect();
                found.sort();
                let mut expected: Vec<_> = self.content.keys().map(|name| name.path()).collect();
                expected.sort_unstable();
                check_eq!(found, expected, "what is listed");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Few enough of many bytes for a message.
fn shown(content: Result<Vec<u8>, ErrorCode>) -> Result<String, ErrorCode> {
    content.map(|bytes| {
        let head: String = bytes.iter().take(8).copied().map(char::from).collect();
        format!("{} bytes, {head}…", bytes.len())
    })
}

async fn run(subject: &Subject, operations: &[Operation]) -> Outcome {
    let live = subject.created().await?;
    let mut model = Model {
        live: &live,
        commands: subject.declares("commands")?,
        files: subject.declares("files")?,
        stage: Stage::Created,
        content: BTreeMap::new(),
    };
    if model.files {
        live.start().await?;
        model.stage = Stage::Running;
        let request = MakeDirectory::new("model");
        live.handle.make_directory(&request, call()).await?;
    }
    for operation in operations {
        model.step(operation).await?;
    }
    live.close().await
}

async fn random_operations(subject: Subject) -> Outcome {
    let config = Config {
        cases: SEQUENCES,
        max_shrink_iters: SHRINKS,
        max_shrink_time: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut seed = [0; 32];
    for (place, byte) in seed.iter_mut().zip(subject.seed().to_le_bytes()) {
        *place = byte;
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let sequences = collection::vec(operation(), 1..40);
    let found = runner.run(&sequences, |operations| {
        let running = async { run(&subject, &operations).await };
        block_in_place(|| Handle::current().block_on(running))
            .map_err(|finding| TestCaseError::fail(finding.message().to_owned()))
    });
    match found {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, least)) => Err(Finding::Failed(format!(
            "{reason}, after {least:?} (seed {})",
            subject.seed()
        ))),
        Err(TestError::Abort(reason)) => Err(Finding::Failed(reason.to_string())),
    }
}
