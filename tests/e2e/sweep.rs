//! What a dead host left behind is removed, and nothing else.

use std::fs::{self, File};

use serde_json::{Value, json};

use crate::world::{At, PLUGIN, World, at_both, files_in, object};

at_both! {
    only_a_dead_hosts_lease_is_swept_until_nothing_is_left,
    what_a_host_left_that_ended_without_shutdown_is_swept_by_its_neighbour,
    a_lease_stays_while_its_sandbox_type_is_not_there,
    a_sweep_that_panics_keeps_the_lease,
}

impl World {
    fn leave_lease(&self, name: &str, types: &str) -> File {
        fs::write(self.leases().join(name), types).unwrap();
        File::open(self.leases().join(name)).unwrap()
    }

    fn will_sweep(&self, removed: &[&str], kept: &[&str]) {
        let swept = json!({ "removed": removed, "kept": kept });
        fs::write(self.path("journal.swept"), swept.to_string()).unwrap();
    }

    fn sweeps(&self) -> Vec<Value> {
        let journal = self.journal();
        let sweeps = journal
            .iter()
            .filter_map(|line| line.strip_prefix("sweep "));
        sweeps
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    }
}

async fn only_a_dead_hosts_lease_is_swept_until_nothing_is_left(at: At) {
    let world = World::new(at).await;
    let manager = world.host.manager();
    let sandbox = world.sandbox(json!({})).await;
    world.will_sweep(&["one"], &["two"]);
    assert!(
        manager.sweep().await.is_empty(),
        "there is nothing but its own lease"
    );
    assert!(world.sweeps().is_empty());

    world.leave_lease("dead", "wild\n");
    let held = world.leave_lease("held", "wild\n");
    held.lock().unwrap();
    assert_eq!(manager.sweep().await, ["one"]);
    let sweeps = world.sweeps();
    assert_eq!(sweeps.len(), 1);
    assert_eq!(sweeps[0]["free_leases"], json!(["dead"]));
    assert_eq!(sweeps[0]["known"], json!([sandbox.id()]));
    assert!(world.leases().join("dead").exists(), "something is kept");

    world.will_sweep(&["two"], &[]);
    assert_eq!(manager.sweep().await, ["two"]);
    assert!(!world.leases().join("dead").exists());
    assert!(world.leases().join("held").exists());
    assert!(manager.sweep().await.is_empty());
    assert_eq!(world.sweeps().len(), 2);

    drop(held);
    world.will_sweep(&[], &[]);
    manager.sweep().await;
    assert_eq!(world.sweeps()[2]["free_leases"], json!(["held"]));
    assert_eq!(files_in(&world.leases()).len(), 1, "its own is left");
}

async fn what_a_host_left_that_ended_without_shutdown_is_swept_by_its_neighbour(at: At) {
    let world = World::new(at).await;
    let neighbour = world.neighbour(at).await;
    let theirs = neighbour
        .manager()
        .create(world.request(json!({})))
        .await
        .unwrap();
    world.will_sweep(&[theirs.id()], &[]);
    assert!(
        world.host.manager().sweep().await.is_empty(),
        "the neighbour lives"
    );
    drop(neighbour);
    // Its last task may be about to let go of the lease.
    let swept = loop {
        let swept = world.host.manager().sweep().await;
        if !swept.is_empty() {
            break swept;
        }
    };
    assert_eq!(swept, [theirs.id()]);
    assert_eq!(files_in(&world.leases()).len(), 1);
}

async fn a_lease_stays_while_its_sandbox_type_is_not_there(at: At) {
    let world = World::new(at).await;
    world.leave_lease("dead", "wild\ndocker\n");
    world.will_sweep(&["one"], &[]);
    assert_eq!(world.host.manager().sweep().await, ["one"]);
    assert!(world.leases().join("dead").exists());
    assert_eq!(world.sweeps().len(), 1);
}

async fn a_sweep_that_panics_keeps_the_lease(at: At) {
    let world = World::with(at, |config| {
        let plugin = config.plugins.get_mut(PLUGIN).unwrap();
        plugin.settings = object(json!({ "panic_in": ["sweep"] }));
    })
    .await;
    world.leave_lease("dead", "wild\n");
    assert!(world.host.manager().sweep().await.is_empty());
    assert!(world.leases().join("dead").exists());
    world.goes_on().await;
}
