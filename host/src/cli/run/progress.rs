//! What a person sees while a sandbox is made: how far the image is that it is made from.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;

use super::output;
use crate::sandbox::Event;

/// The kind of the events that tell how far an image is.
const PULL: &str = "image-pull";

/// The facts of such an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pull {
    image: String,
    layers_done: u32,
    layers_total: u32,
    bytes_done: u64,
    bytes_total: u64,
}

/// Shows how far images are until the work is done: a bar in a terminal, a line elsewhere.
pub(super) async fn shown<T>(
    mut events: UnboundedReceiver<Event>,
    work: impl Future<Output = T>,
) -> T {
    let mut bar = None;
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(event) = events.recv() => {
                if event.kind == PULL {
                    let pull = Pull::deserialize(event.data).unwrap_or_default();
                    show(bar.get_or_insert_with(|| begin(&pull)), &pull);
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

fn begin(pull: &Pull) -> ProgressBar {
    if !stderr().is_terminal() {
        output::remark(format_args!("pulling {}", pull.image));
        return ProgressBar::hidden();
    }
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

fn show(bar: &ProgressBar, pull: &Pull) {
    bar.set_length(pull.bytes_total);
    bar.set_position(pull.bytes_done);
    bar.set_message(format!(
        "pulling {} ({}/{} layers)",
        pull.image, pull.layers_done, pull.layers_total
    ));
}
