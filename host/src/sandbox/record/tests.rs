use std::time::Duration;

use super::{super::Past, *};

fn record() -> Arc<Record> {
    let forever = Duration::MAX;
    record_of(SystemTime::now(), forever)
}

fn record_of(created_at: SystemTime, ttl: Duration) -> Arc<Record> {
    Record::new(beginning_of(created_at, ttl))
}

fn beginning_of(created_at: SystemTime, ttl: Duration) -> Beginning {
    let identity = SandboxIdentity::new("s", "", "");
    let lifetime = Lifetime {
        ttl,
        idle: None,
        ended: Duration::MAX,
        keep: false,
    };
    Beginning {
        identity,
        sandbox_type: "test".into(),
        config: json!({}),
        tools: None,
        lifetime,
        created_at,
        journal: Journal::default(),
        listener: None,
        past: Past::default(),
    }
}

#[test]
fn a_clock_that_was_set_back_takes_no_time_from_a_sandbox() {
    let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
    let expires = |created_at| {
        let record = record_of(created_at, hour);
        record.move_to(Status::Running).unwrap();
        record.expire()
    };
    assert_eq!(expires(now - hour / 2), None);
    assert_eq!(expires(now + hour * 24), None);
    assert_eq!(expires(now - hour * 2).unwrap(), "it lived for 1h");
}

#[test]
fn a_restart_gives_no_time_to_what_had_ended() {
    let hour = Duration::from_secs(3600);
    let over = |ago: Duration| {
        let event = Event {
            time: SystemTime::now() - ago,
            kind: "error".into(),
            data: Value::Null,
        };
        let mut beginning = beginning_of(SystemTime::now() - ago, Duration::MAX);
        beginning.lifetime.ended = hour;
        beginning.past.events.push(event);
        let record = Record::new(beginning);
        record.take_up(Status::Error);
        assert_eq!(record.events().len(), 1);
        let over = record.expire();
        // It is being deleted, and not over once more.
        assert_eq!(record.expire(), None);
        over
    };
    assert_eq!(over(hour / 2), None);
    assert_eq!(over(hour * 2).unwrap(), "it was error for 1h");
}

#[test]
fn a_sandbox_is_busy_while_calls_run_and_takes_none_before_or_after() {
    let record = record();
    assert!(record.begin().is_err());
    record.move_to(Status::Running).unwrap();
    let (first, second) = (record.begin().unwrap(), record.begin().unwrap());
    drop(first);
    assert_eq!(record.status(), Status::Busy);
    drop(second);
    assert_eq!(record.status(), Status::Running);
    let last = record.begin().unwrap();
    record.stopping();
    drop(last);
    assert_eq!(record.status(), Status::Stopping);
    assert!(record.begin().is_err());
}

#[test]
fn what_kept_an_earlier_host_from_it_is_no_news_once_it_is_recovered() {
    let mut beginning = beginning_of(SystemTime::now(), Duration::MAX);
    let metadata = &mut beginning.past.metadata;
    metadata.insert("error".into(), json!("its plugin was gone"));
    metadata.insert("pid".into(), json!(7));
    let record = Record::new(beginning);
    record.recovered().unwrap();
    let metadata = record.info().metadata;
    assert_eq!(
        metadata.into_iter().collect::<Vec<_>>(),
        [("pid".into(), json!(7))]
    );
}

#[test]
fn one_that_waits_in_a_pool_does_so_again_after_a_call() {
    let record = record();
    record.move_to(Status::Running).unwrap();
    record.park(true);
    assert_eq!(record.status(), Status::Idle);
    let call = record.begin().unwrap();
    record.park(false);
    record.park(true);
    assert_eq!(record.status(), Status::Busy);
    drop(call);
    assert_eq!(record.status(), Status::Idle);
    record.park(false);
    assert_eq!(record.status(), Status::Running);
    record.fail("lost");
    record.park(true);
    assert_eq!(record.status(), Status::Error);
}

#[tokio::test]
async fn what_runs_for_others_makes_nothing_busy_and_is_waited_for() {
    let record = record();
    record.move_to(Status::Running).unwrap();
    let call = record.begin_in_background().unwrap();
    assert_eq!(record.status(), Status::Running);
    let quiet = tokio::spawn({
        let record = Arc::clone(&record);
        async move { record.quiet().await }
    });
    tokio::task::yield_now().await;
    assert!(!quiet.is_finished());
    drop(call);
    quiet.await.unwrap();
}

#[test]
fn what_the_host_says_of_it_is_not_its_plugins_to_set() {
    let record = record();
    record.move_to(Status::Running).unwrap();
    record.services().set_metadata("error".into(), Value::Null);
    record.fail("the engine is gone");
    assert_eq!(record.info().metadata["error"], "the engine is gone");
}

#[test]
fn the_first_error_is_the_cause_and_calls_are_told_it() {
    let record = record();
    record.move_to(Status::Running).unwrap();
    record.fail("out of memory");
    record.fail("connection lost");
    record.stopping();
    assert_eq!(record.status(), Status::Error);
    assert_eq!(record.info().metadata["error"], "out of memory");
    assert!(
        record
            .begin()
            .unwrap_err()
            .message()
            .contains("out of memory")
    );
}

#[tokio::test]
async fn services_reach_the_record_and_are_closed_without_it() {
    let record = record();
    record.move_to(Status::Running).unwrap();
    let services = record.services();
    services.event("pulled".into(), json!(1));
    services.set_metadata("pid".into(), json!(7));
    let state = State::new(1, &"x").unwrap();
    services.save_state(&state).await.unwrap();
    assert_eq!(record.state(), Some(state.clone()));
    assert_eq!(record.info().metadata["pid"], 7);
    assert!(record.events().iter().any(|event| event.kind == "pulled"));
    services.exited("the process is gone".into());
    assert_eq!(record.status(), Status::Error);
    drop(record);
    let error = services.save_state(&state).await.unwrap_err();
    assert_eq!(error.code(), boxyard_plugin_api::ErrorCode::CLOSED);
}
