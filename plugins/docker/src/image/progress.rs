//! How far a pull is, over all layers.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;
use boxyard_plugin_api::prelude::*;

/// How far a pull is. The totals grow as the engine learns of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// How many layers are there, those that were there before included.
    pub(crate) layers_done: u32,
    pub(crate) layers_total: u32,
    /// How many bytes were downloaded of the layers whose download began.
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
}

/// What the engine told of each layer.
#[derive(Debug, Default)]
pub(super) struct Layers(HashMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    is_done: bool,
    done: u64,
    total: u64,
}

impl Layers {
    /// Takes one of the engine's messages.
    pub(super) fn take(&mut self, message: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&message.id, message.status.as_deref()) else {
            return;
        };
        let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let layer = match status {
            "Pulling fs layer" | "Waiting" | "Downloading" | "Download complete" | "Extracting"
            | "Pull complete" | "Already exists" => self.0.entry(id.clone()).or_default(),
            // The image as a whole, and what changes nothing.
            _ => return,
        };
        match (status, &message.progress_detail) {
            ("Downloading", Some(detail)) => {
                layer.done = bytes(detail.current);
                layer.total = bytes(detail.total).max(layer.done);
            }
            ("Download complete" | "Extracting", _) => layer.done = layer.total,
            ("Pull complete" | "Already exists", _) => {
                layer.done = layer.total;
                layer.is_done = true;
            }
            _ => {}
        }
    }

    /// Adds the layers up.
    pub(super) fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for layer in self.0.values() {
            sum.layers_total += 1;
            sum.layers_done += u32::from(layer.is_done);
            sum.bytes_done = sum.bytes_done.saturating_add(layer.done);
            sum.bytes_total = sum.bytes_total.saturating_add(layer.total);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_added_up() {
        let mut layers = Layers::default();
        let mut progress = Vec::new();
        for (id, status, current, total) in [
            ("latest", "Pulling from a", 0, 0),
            ("one", "Already exists", 0, 0),
            ("two", "Pulling fs layer", 0, 0),
            ("three", "Pulling fs layer", 0, 0),
            ("two", "Downloading", 10, 100),
            ("three", "Waiting", 0, 0),
            ("three", "Downloading", 50, 50),
            ("two", "Verifying Checksum", 0, 0),
            ("two", "Download complete", 0, 0),
            ("two", "Extracting", 3, 7),
            ("two", "Pull complete", 0, 0),
            ("three", "Pull complete", 0, 0),
        ] {
            let detail = json!({"current": current, "total": total});
            let message = json!({"id": id, "status": status, "progressDetail": detail});
            layers.take(&serde_json::from_value(message).unwrap());
            let sum = layers.progress();
            progress.push((
                sum.layers_done,
                sum.layers_total,
                sum.bytes_done,
                sum.bytes_total,
            ));
        }
        assert_eq!(
            progress,
            [
                (0, 0, 0, 0),
                (1, 1, 0, 0),
                (1, 2, 0, 0),
                (1, 3, 0, 0),
                (1, 3, 10, 100),
                (1, 3, 10, 100),
                (1, 3, 60, 150),
                (1, 3, 60, 150),
                (1, 3, 150, 150),
                (1, 3, 150, 150),
                (2, 3, 150, 150),
                (3, 3, 150, 150),
            ]
        );
    }
}
