//! `notebook_executor`: Python that keeps its state between calls; no Jupyter is needed.
//!
//! One interpreter per sandbox reads cells from its standard input and answers on its standard
//! output. A cell that runs too long is interrupted as Ctrl-C does; one that goes on all the same
//! ends with its interpreter, and the state with it.

use std::{sync::Arc, time::Duration};

use boxyard_plugin_api::{ByteSink, ByteSource, Chunk, CommandIo, Control, Controls, Error, pipe};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    ToolStatus,
    builtin::{Description, Limit, Outcome, how_it_was_killed, timeout_property},
    python::{NO_PYTHON, interpreter},
};
use crate::{output::Capture, sandbox::Sandbox};

const DRIVER: &str = include_str!("notebook.py");
/// How long an interrupted cell may take to end.
const INTERRUPTED: Duration = Duration::from_secs(2);
const SIGINT: i32 = 2;

#[derive(Deserialize)]
pub(super) struct Params {
    code: String,
    #[serde(default)]
    timeout: Limit,
}

/// What the interpreter answers to a cell.
#[derive(Debug, Deserialize)]
struct Answer {
    output: String,
    result: Option<String>,
    error: Option<String>,
}

pub(super) fn description() -> Description {
    let properties = json!({
        "code": { "type": "string", "description": "Python code to execute in the notebook kernel" },
        "timeout": timeout_property(),
    });
    let description = "Execute Python code in a kernel that keeps its state between calls";
    (
        "notebook_executor",
        description.into(),
        properties,
        &["code"],
    )
}

pub(super) async fn execute(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    if params.code.trim().is_empty() {
        return Ok(Outcome::error("No code provided"));
    }
    // One cell at a time, in the order of their calls.
    let mut place = sandbox.notebook().kernel.lock().await;
    let mut kernel = match place.take() {
        Some(kernel) if !kernel.ended.is_cancelled() => kernel,
        _ => Kernel::start(sandbox),
    };
    let asked = kernel.ask(&params.code);
    let Ok(answer) = timeout(params.timeout.duration(), asked).await else {
        let late = kernel.interrupt().await;
        let mut error = late.as_ref().map(said).unwrap_or_default();
        error.push_str(&format!(
            "Execution timed out after {} seconds",
            params.timeout.text()
        ));
        if late.is_some() {
            *place = Some(kernel);
        } else {
            error.push_str("; it could not be interrupted, so the notebook's state is lost");
        }
        return Ok(Outcome {
            status: ToolStatus::Timeout,
            ..Outcome::error(error)
        });
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(Lost::Ended) => {
            let why = kernel.why_it_ended().await;
            return Ok(Outcome::cut(match why.as_str() {
                "" => "the notebook's Python ended, and its state is lost".into(),
                NO_PYTHON => why,
                why => format!("the notebook's Python ended, and its state is lost: {why}"),
            }));
        }
        Err(Lost::NoAnswer) => {
            return Ok(Outcome::error(
                "the notebook's Python answered something that is no answer, so its state is lost",
            ));
        }
    };
    // Only here: a cell that was given up ends with its interpreter.
    *place = Some(kernel);
    let said = said(&answer);
    Ok(match answer.error {
        Some(_) => Outcome::error(said),
        None => Outcome::success(said),
    })
}

/// Puts together what a cell showed, as a notebook does.
fn said(answer: &Answer) -> String {
    let mut said = answer.output.clone();
    if let Some(result) = &answer.result {
        said.push_str(&format!("\nResult: {result}"));
    }
    said.push_str(answer.error.as_deref().unwrap_or_default());
    said
}

/// A sandbox's notebook; its interpreter is started by the first cell.
#[derive(Debug, Default)]
pub(crate) struct Notebook {
    kernel: Mutex<Option<Kernel>>,
}

impl Notebook {
    /// Ends its interpreter once no cell is running.
    pub(crate) async fn end(&self) {
        self.kernel.lock().await.take();
    }
}

/// The interpreter of a notebook; ended when it is dropped.
#[derive(Debug)]
struct Kernel {
    cells: ByteSink,
    answers: Answers,
    controls: ByteSink,
    complaints: Capture,
    /// How much it keeps of each thing that a cell shows, in bytes.
    limit: usize,
    ended: CancellationToken,
    _command: AbortOnDropHandle<()>,
}

impl Kernel {
    fn start(sandbox: &Arc<Sandbox>) -> Self {
        let limit = sandbox.max_output_bytes();
        let ((cells, stdin), (stdout, answers)) = (pipe(), pipe());
        let (controls, controls_source) = pipe();
        let complaints = Capture::new(16 * 1024);
        let io = CommandIo {
            stdin,
            stdout,
            stderr: complaints.sink(),
            controls: Controls::from_source(controls_source),
        };
        // The sandbox's own limit is one for what is asked of it, and would end the notebook.
        let mut command = interpreter(["python3", "python"], "-u -c", DRIVER);
        command.timeout = Some(Limit::none().duration());
        command.stdin = true;
        let ended = CancellationToken::new();
        let running = {
            let (sandbox, ended, complaints) =
                (Arc::clone(sandbox), ended.clone(), complaints.sink());
            async move {
                let _ended = ended.drop_guard();
                let message = match sandbox.execute_in_background(&command, io).await {
                    Ok(exit) => how_it_was_killed(&exit),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(message) = message {
                    // Whoever asks why it ended reads it.
                    let _ = complaints.write(Chunk::from(message.into_bytes())).await;
                }
            }
        };
        Self {
            cells,
            answers: Answers::new(answers, limit),
            controls,
            complaints,
            limit,
            ended,
            _command: AbortOnDropHandle::new(tokio::spawn(running)),
        }
    }

    /// Runs a cell.
    async fn ask(&mut self, code: &str) -> Result<Answer, Lost> {
        let line = format!("{}\n", json!({ "code": code, "limit": self.limit }));
        let written = self.cells.write(Chunk::from(line.into_bytes())).await;
        written.map_err(|_| Lost::Ended)?;
        self.answers.next().await
    }

    /// Interrupts the cell; `None` where it goes on.
    async fn interrupt(&mut self) -> Option<Answer> {
        let line = Control::Signal(SIGINT).to_line();
        self.controls.write(Chunk::from(line)).await.ok()?;
        timeout(INTERRUPTED, self.answers.next()).await.ok()?.ok()
    }

    async fn why_it_ended(&mut self) -> String {
        // Its last words come with its end.
        let _ = timeout(INTERRUPTED, self.ended.cancelled()).await;
        let (words, _) = self.complaints.take();
        String::from_utf8_lossy(&words).trim().into()
    }
}

/// Why a cell has no answer.
#[derive(Debug, PartialEq)]
enum Lost {
    /// The interpreter is gone.
    Ended,
    /// What came is no answer: a cell wrote it where only the interpreter writes.
    NoAnswer,
}

/// The answers of an interpreter, one a line. What a sandbox writes is never trusted to end.
#[derive(Debug)]
struct Answers {
    source: ByteSource,
    /// An answer that is not all there yet.
    begun: Vec<u8>,
    longest: usize,
}

impl Answers {
    /// Reads answers of three texts of `limit` bytes.
    fn new(source: ByteSource, limit: usize) -> Self {
        // A byte is six at most in JSON, and each text may have a note that it was cut.
        let longest = limit.saturating_mul(3 * 6).saturating_add(4096);
        Self {
            source,
            begun: Vec::new(),
            longest,
        }
    }

    /// Waits for the next one. Cancel-safe.
    async fn next(&mut self) -> Result<Answer, Lost> {
        loop {
            let chunk = self.source.read(64 * 1024).await.map_err(|_| Lost::Ended)?;
            let chunk = chunk.ok_or(Lost::Ended)?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            self.begun.extend_from_slice(&chunk);
            match end {
                None if self.begun.len() <= self.longest => {}
                // There is one answer to each cell, and nothing after it.
                Some(end) if end + 1 == chunk.len() => {
                    let line = std::mem::take(&mut self.begun);
                    return serde_json::from_slice(&line).map_err(|_| Lost::NoAnswer);
                }
                _ => return Err(Lost::NoAnswer),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"{\"output\":\"a\",\"result\":null,\"error\":null}\n";

    /// Reads one answer from what is written piece by piece.
    async fn answered(pieces: Vec<Vec<u8>>) -> Result<String, Lost> {
        let (sink, source) = pipe();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                // Nobody reads what comes after something that is no answer.
                if sink.write(piece).await.is_err() {
                    return;
                }
            }
            let _ = sink.finish().await;
        });
        let mut answers = Answers::new(source, 1000);
        let answer = answers.next().await.map(|answer| answer.output);
        assert!(answers.begun.len() <= answers.longest + 64 * 1024);
        drop(answers);
        writer.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_are_read_whole_from_pieces() {
        let bytes = ANSWER.iter().map(|byte| vec![*byte]).collect();
        assert_eq!(answered(bytes).await, Ok("a".into()));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_not_waited_for() {
        let endless = vec![vec![b'x'; 64 * 1024]; 100];
        let twice = [ANSWER, ANSWER].concat();
        for (pieces, lost) in [
            (endless, Lost::NoAnswer),
            (vec![b"nonsense\n".to_vec()], Lost::NoAnswer),
            (vec![b"{}\n".to_vec()], Lost::NoAnswer),
            (vec![twice], Lost::NoAnswer),
            (vec![b"{".to_vec()], Lost::Ended),
        ] {
            assert_eq!(answered(pieces).await, Err(lost));
        }
    }

    #[tokio::test]
    async fn the_longest_answer_is_one() {
        // One byte that takes six, and what is written where the middle was cut.
        let text = format!("{}{}", "\u{1}".repeat(1000), "n".repeat(64));
        let answer = json!({ "output": text, "result": text, "error": text });
        let line = format!("{answer}\n").into_bytes();
        let pieces = line.chunks(500).map(<[u8]>::to_vec).collect();
        assert_eq!(answered(pieces).await, Ok(text));
    }
}
