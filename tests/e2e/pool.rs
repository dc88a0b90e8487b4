//! Pools: who gets a sandbox when, and what becomes of those that die.

use std::{sync::Arc, time::Duration};

use boxyard_host::{CreatePoolError, Pool, PoolError, PoolSpec, Reuse};
use serde_json::{Value, json};

use crate::world::{At, PLUGIN, World, at_both, eventually, object, run, status_is};

at_both! {
    all_are_made_at_once,
    no_more_are_made_at_once_than_may_be_and_all_are,
    callers_are_served_in_the_order_in_which_they_came,
    one_that_was_used_is_never_handed_out_again,
    one_that_is_kept_is_handed_out_again,
    one_that_was_reset_is_handed_out_again,
    one_that_cannot_be_reset_is_replaced,
    one_that_died_in_use_is_replaced,
    those_that_die_while_nobody_uses_them_are_replaced,
    one_that_does_not_answer_is_not_handed_out,
    nobody_waits_for_what_cannot_be_made,
    a_pool_that_is_deleted_takes_its_sandboxes_along,
    it_grows_and_shrinks,
    those_whose_time_is_over_are_replaced,
    one_that_leaves_makes_room_for_another_on_a_full_host,
    nobody_waits_for_a_pool_that_was_emptied,
    it_is_not_larger_than_any_machine,
}

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const POOL: &str = "workers";

fn pool(world: &World, size: usize, reuse: Reuse, config: Value) -> Arc<Pool> {
    let mut spec = PoolSpec::new(POOL, PLUGIN, size);
    spec.config = object(config);
    spec.config
        .insert("journal".into(), json!(world.path("journal")));
    spec.reuse = reuse;
    world.host.manager().create_pool(spec).unwrap()
}

async fn all_are_made_at_once(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 3, Reuse::Replace, json!({ "wait_in": ["start"] }));
    eventually("all are being started", || world.count("start") == 3).await;
    assert_eq!((pool.stats().filling, pool.stats().idle), (3, 0));
    world.open_gate("start");
    pool.settled().await;
    assert_eq!((pool.stats().filling, pool.stats().idle), (0, 3));
    let again = world
        .host
        .manager()
        .create_pool(PoolSpec::new(POOL, PLUGIN, 1));
    assert!(
        matches!(again, Err(CreatePoolError::Exists { .. })),
        "{again:?}"
    );
    let unknown = PoolSpec::new("other", "nosuch", 1);
    let unknown = world.host.manager().create_pool(unknown);
    assert!(unknown.is_err(), "{unknown:?}");
}

async fn no_more_are_made_at_once_than_may_be_and_all_are(at: At) {
    let world = World::with(at, |config| config.limits.creating = Some(2)).await;
    let pool = pool(&world, 7, Reuse::Replace, json!({}));
    pool.settled().await;
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.created, stats.failed), (7, 7, 0));
    // Where none may be made at all, that is said.
    let world = World::with(at, |config| config.limits.creating = Some(0)).await;
    let pool = self::pool(&world, 1, Reuse::Replace, json!({}));
    let refused = pool.acquire(LONG).await.unwrap_err();
    assert!(
        refused.to_string().contains("`limits.creating`"),
        "{refused}"
    );
}

async fn callers_are_served_in_the_order_in_which_they_came(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({}));
    let first = pool.acquire(LONG).await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for number in 0..5 {
        let (waiting, order) = (Arc::clone(&pool), Arc::clone(&order));
        callers.push(tokio::spawn(async move {
            let _lent = waiting.acquire(LONG).await.unwrap();
            order.lock().unwrap().push(number);
        }));
        eventually("it waits", || pool.stats().waiting == number + 1).await;
    }
    // One that gives up leaves its place to the next.
    let late = pool.acquire(Duration::from_millis(20)).await;
    assert_eq!(
        late.unwrap_err().to_string(),
        "pool `workers` had no free sandbox within 20ms: 1 of 1 are in use"
    );
    callers.remove(2).abort();
    drop(first);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
    assert_eq!((pool.stats().idle, pool.stats().created), (1, 1));
}

async fn one_that_was_used_is_never_handed_out_again(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Replace, json!({}));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let lent = pool.acquire(LONG).await.unwrap();
        seen.push(lent.id().to_owned());
        run(&lent, &["echo"]).await.unwrap();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    eventually("the used ones are gone", || {
        world.host.manager().list().len() == 1 && pool.stats().idle == 1
    })
    .await;
    assert_eq!((pool.stats().lent, pool.stats().died), (3, 0));
}

async fn one_that_is_kept_is_handed_out_again(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({}));
    let id = pool.acquire(LONG).await.unwrap().id().to_owned();
    assert_eq!(pool.acquire(LONG).await.unwrap().id(), id);
}

async fn one_that_was_reset_is_handed_out_again(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Reset, json!({}));
    let id = pool.acquire(LONG).await.unwrap().id().to_owned();
    assert_eq!(pool.acquire(LONG).await.unwrap().id(), id);
    world.noted("reset").await;
}

async fn one_that_cannot_be_reset_is_replaced(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Reset, json!({ "fail_in": ["reset"] }));
    let id = pool.acquire(LONG).await.unwrap().id().to_owned();
    assert_ne!(pool.acquire(LONG).await.unwrap().id(), id);
}

async fn one_that_died_in_use_is_replaced(at: At) {
    let world = World::new(at).await;
    let config = json!({ "exited": "it fell over", "wait_in": ["exit"] });
    let pool = pool(&world, 1, Reuse::Keep, config);
    let lent = pool.acquire(LONG).await.unwrap();
    world.open_gate("exit");
    status_is(&lent, boxyard_host::Status::Error).await;
    std::fs::remove_file(world.path("journal.exit")).unwrap();
    let id = lent.id().to_owned();
    drop(lent);
    assert_ne!(pool.acquire(LONG).await.unwrap().id(), id);
    assert_eq!(pool.stats().died, 1);
}

async fn those_that_die_while_nobody_uses_them_are_replaced(at: At) {
    let world = World::new(at).await;
    let config = json!({ "exited": "it fell over", "wait_in": ["exit"] });
    let pool = pool(&world, 2, Reuse::Keep, config);
    pool.settled().await;
    let before = pool.ids();
    world.open_gate("exit");
    eventually("both died", || {
        let sandboxes = world.host.manager().list();
        let mut alive = sandboxes.iter().filter(|one| one.status().takes_calls());
        !alive.any(|one| before.iter().any(|id| id == one.id()))
    })
    .await;
    std::fs::remove_file(world.path("journal.exit")).unwrap();
    eventually("the pool is whole", || {
        let ids = pool.ids();
        ids.len() == 2 && !ids.iter().any(|id| before.contains(id))
    })
    .await;
    run(&pool.acquire(LONG).await.unwrap(), &["echo"])
        .await
        .unwrap();
}

async fn one_that_does_not_answer_is_not_handed_out(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({ "wait_in": ["stat"] }));
    pool.settled().await;
    let before = pool.ids();
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.acquire(LONG).await.unwrap().id().to_owned() }
    });
    eventually("another is made", || pool.stats().created == 2).await;
    world.open_gate("stat");
    assert!(!before.contains(&waiting.await.unwrap()));
    assert!(pool.stats().died >= 1);
}

async fn nobody_waits_for_what_cannot_be_made(at: At) {
    let world = World::new(at).await;
    let config = json!({ "fail_in": ["start"], "wait_in": ["start"] });
    let pool = pool(&world, 1, Reuse::Replace, config);
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.acquire(LONG).await }
    });
    eventually("it waits", || pool.stats().waiting == 1).await;
    world.open_gate("start");
    let told = waiting.await.unwrap().unwrap_err();
    assert!(matches!(told, PoolError::CannotFill { .. }), "{told:?}");
    assert!(told.to_string().contains("start"), "{told}");
    // Who comes later is told at once, and does not make it try more often.
    let told = pool.acquire(LONG).await.unwrap_err();
    assert!(matches!(told, PoolError::CannotFill { .. }), "{told:?}");
    assert_eq!(pool.stats().failed, 1);
    assert!(pool.stats().last_error.unwrap().contains("start"));
}

async fn a_pool_that_is_deleted_takes_its_sandboxes_along(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 2, Reuse::Keep, json!({}));
    let lent = pool.acquire(LONG).await.unwrap();
    pool.settled().await;
    let _other = pool.acquire(LONG).await.unwrap();
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.acquire(LONG).await }
    });
    eventually("it waits", || pool.stats().waiting == 1).await;
    let manager = world.host.manager();
    manager.delete_pool(POOL).unwrap();
    let told = waiting.await.unwrap().unwrap_err();
    assert!(matches!(told, PoolError::Closed { .. }), "{told:?}");
    assert!(matches!(manager.pool(POOL), Err(PoolError::Unknown { .. })));
    // What is in use stays until its user is done.
    run(&lent, &["echo"]).await.unwrap();
    drop((lent, _other));
    eventually("all are gone", || manager.list().is_empty()).await;
}

async fn it_grows_and_shrinks(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({}));
    pool.resize(3).unwrap();
    eventually("it has grown", || pool.stats().idle == 3).await;
    let lent = pool.acquire(LONG).await.unwrap();
    pool.resize(1).unwrap();
    assert_eq!((pool.stats().idle, pool.stats().in_use), (0, 1));
    let kept = lent.id().to_owned();
    drop(lent);
    assert_eq!(pool.ids(), [kept]);
    let manager = world.host.manager();
    eventually("the others are gone", || manager.list().len() == 1).await;
    // Whoever deletes one of its sandboxes wants one less.
    manager.delete(&pool.ids()[0]).await.unwrap();
    let empty = pool.acquire(LONG).await.unwrap_err();
    assert!(matches!(empty, PoolError::Empty { .. }), "{empty:?}");
}

async fn those_whose_time_is_over_are_replaced(at: At) {
    let short = Duration::from_millis(300);
    let world = World::with(at, |config| config.lifetimes.running = short).await;
    let pool = pool(&world, 2, Reuse::Replace, json!({}));
    eventually("all were replaced", || pool.stats().created >= 4).await;
    assert_eq!(pool.stats().size, 2);
    assert!(pool.stats().died >= 2);
}

async fn one_that_leaves_makes_room_for_another_on_a_full_host(at: At) {
    let world = World::with(at, |config| config.limits.sandboxes = Some(2)).await;
    let pool = pool(&world, 2, Reuse::Replace, json!({}));
    for _ in 0..4 {
        let both = [pool.acquire(LONG).await, pool.acquire(LONG).await];
        assert!(both.iter().all(Result::is_ok), "{both:?}");
        let third = pool.acquire(LONG);
        drop(both);
        third.await.unwrap();
    }
    assert_eq!(pool.stats().failed, 0);
}

async fn nobody_waits_for_a_pool_that_was_emptied(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({}));
    let lent = pool.acquire(LONG).await.unwrap();
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.acquire(LONG).await.map(drop) }
    });
    eventually("it waits", || pool.stats().waiting == 1).await;
    world.host.manager().delete(lent.id()).await.unwrap();
    let told = waiting.await.unwrap().unwrap_err();
    assert!(matches!(told, PoolError::Empty { .. }), "{told}");
    assert_eq!(pool.stats().size, 0);
}

async fn it_is_not_larger_than_any_machine(at: At) {
    let world = World::new(at).await;
    let pool = pool(&world, 1, Reuse::Keep, json!({}));
    let refused = pool.resize(usize::MAX).unwrap_err();
    assert!(refused.to_string().contains("at most 10000"), "{refused}");
    assert_eq!(pool.stats().size, 1);
    let spec = PoolSpec::new("other", PLUGIN, usize::MAX);
    let refused = world.host.manager().create_pool(spec).unwrap_err();
    assert!(matches!(refused, CreatePoolError::TooLarge(_)), "{refused}");
}
