//! The sweep's own rules: each of them is broken once and must be reported, and none may be reported wrongly.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::pin::pin;
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::Duration;

use support::sweep::{Ended, Fault, Parts, Report, Scene, explore, sweep};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What the sweep says of each point, in the order of the points.
fn said<T: 'static>(make: impl Fn(&Parts) -> Scene<T>) -> Vec<String> {
    explore(make).violations.into_iter().map(|(point, what)| format!("{point}: {what}")).collect()
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("boom");
    }
}

// Where the subject is dropped.

#[test]
fn every_point_has_a_name() {
    let subject = async || {
        sleep(ms(5)).await;
        yield_now().await;
    };
    let names = explore(|_| Scene::new(subject()).check(|_| panic!("a violation at each point"))).violations;
    let names: Vec<_> = names.into_iter().map(|(point, _)| point).collect();
    // Between a yield and the next poll passes no time: there is no instant to wait for.
    assert_eq!(names, ["end", "unpolled", "suspended:1", "waiting:1", "woken:1", "suspended:2", "woken:2"]);
}

#[test]
fn the_subject_is_dropped_where_the_name_says() {
    /// Notes when it was dropped, and whether the bell had rung for someone who did not come to hear it.
    struct Log(Rc<RefCell<Vec<(u128, bool)>>>, Instant, Rc<Notify>);
    impl Drop for Log {
        fn drop(&mut self) {
            let unheard = pin!(self.2.notified()).enable();
            self.0.borrow_mut().push((self.1.elapsed().as_millis(), unheard));
        }
    }
    let drops = Rc::new(RefCell::new(Vec::new()));
    let report = explore(|_| {
        let bell = Rc::new(Notify::new());
        let ring = bell.clone();
        let log = Log(drops.clone(), Instant::now(), bell.clone());
        Scene::new(async move {
            bell.notified().await;
            sleep(ms(5)).await;
            drop(log);
        })
        .alongside(async move {
            sleep(ms(5)).await;
            ring.notify_one();
        })
    });
    assert!(report.violations.is_empty(), "{report}");
    let [end, unpolled] = [(10, false), (0, false)];
    let first_wait = [(0, false), (4, false), (5, true)];
    let second_wait = [(5, false), (9, false), (10, false)];
    assert_eq!(*drops.borrow(), [&[end, unpolled], &first_wait[..], &second_wait[..]].concat());
}

#[test]
fn whoever_acts_at_the_same_instant_acts_before_the_drop() {
    /// Notes whether the bystander had acted when it was dropped.
    struct Log(Rc<RefCell<Vec<bool>>>, Rc<Cell<bool>>);
    impl Drop for Log {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1.get());
        }
    }
    let drops = Rc::new(RefCell::new(Vec::new()));
    let report = explore(|_| {
        let acted = Rc::new(Cell::new(false));
        let log = Log(drops.clone(), acted.clone());
        Scene::new(async {
            sleep(ms(5)).await;
            drop(log);
        })
        .alongside(async move {
            sleep(ms(4)).await;
            acted.set(true);
        })
    });
    assert!(report.violations.is_empty(), "{report}");
    let [end, unpolled, suspended, waiting, woken] = [true, false, false, true, true];
    assert_eq!(*drops.borrow(), [end, unpolled, suspended, waiting, woken]);
}

#[test]
fn a_stop_is_tried_at_each_point_and_a_drop_at_each_later_one() {
    let report = explore(|_| {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Scene::new(async move {
            stopped.run_until_cancelled(sleep(ms(5))).await;
            sleep(ms(5)).await;
        })
        .stop(move || stop.cancel())
        .check(|_| panic!("a violation at each point"))
    });
    let stops = report.violations.iter().filter(|(point, _)| point.starts_with("Stop:"));
    let stops: Vec<_> = stops.map(|(point, _)| point.strip_prefix("Stop:").unwrap()).collect();
    assert_eq!(
        stops,
        [
            // It was asked before its first poll, and so waits only once.
            "unpolled/end",
            "unpolled/unpolled",
            "unpolled/suspended:1",
            "unpolled/waiting:1",
            "unpolled/woken:1",
            "suspended:1/end",
            "suspended:1/suspended:1",
            "suspended:1/woken:1",
            "suspended:1/suspended:2",
            "suspended:1/waiting:2",
            "suspended:1/woken:2",
            "waiting:1/end",
            "waiting:1/woken:1",
            "waiting:1/suspended:2",
            "waiting:1/waiting:2",
            "waiting:1/woken:2",
            "woken:1/end",
            "woken:1/woken:1",
            "woken:1/suspended:2",
            "woken:1/waiting:2",
            "woken:1/woken:2",
            "suspended:2/end",
            "suspended:2/suspended:2",
            "suspended:2/waiting:2",
            "suspended:2/woken:2",
            "waiting:2/end",
            "waiting:2/waiting:2",
            "waiting:2/woken:2",
            "woken:2/end",
            "woken:2/woken:2",
        ]
    );
    assert_eq!((report.points, report.triggers, report.triggered_points), (7, 7, 23));
}

#[test]
fn a_child_breaks_at_each_of_its_polls() {
    let faults = Rc::new(RefCell::new(Vec::new()));
    let report = explore(|parts| {
        let (sweep, faults) = (parts.clone(), faults.clone());
        let parts = parts.clone();
        Scene::new(async move {
            let child = async {
                sleep(ms(1)).await;
                Ok::<_, &str>("done")
            };
            let child = AbortOnDropHandle::new(spawn_local(parts.fallible("child", child, || "failed")));
            parts.abort_with("child", child.abort_handle());
            child.await.map_err(|error| error.is_panic())
        })
        .returns_panics()
        .check(move |ended| {
            if let Ended::Returned(result) = ended {
                faults.borrow_mut().push((sweep.fault(), result));
            }
        })
    });
    assert!(report.violations.is_empty(), "{report}");
    let (panicked, failed, aborted) = (Err(true), Ok(Err("failed")), Err(false));
    let expected = [
        (None, Ok(Ok("done"))),
        (Some(Fault::Panic), panicked),
        (Some(Fault::Panic), panicked),
        (Some(Fault::Fail), failed),
        (Some(Fault::Fail), failed),
        (Some(Fault::Abort), aborted),
        (Some(Fault::Abort), aborted),
    ];
    assert_eq!(*faults.borrow(), expected);
    assert_eq!((report.points, report.triggers), (4, 6));
}

#[test]
fn a_subject_that_never_waits_has_one_point() {
    let report = explore(|_| Scene::new(ready(())));
    assert_eq!((report.points, report.triggers, report.violations.len()), (1, 0, 0));
}

// What must hold.

#[test]
fn a_subject_that_waits_for_ever_is_reported() {
    let said = said(|_| Scene::new(pending::<()>()));
    assert_eq!(
        said,
        ["end: the subject waits for ever: it was polled 1 times and did not end within an hour"]
    );
}

#[test]
fn a_subject_that_wakes_itself_for_ever_is_reported() {
    let report = explore(|parts| {
        let child = parts.child("child", ready(()));
        Scene::new(async {
            child.await;
            loop {
                yield_now().await;
            }
        })
    });
    let expected = ("end".to_owned(), "the subject was polled 10000 times without an end".to_owned());
    assert_eq!(report.violations, [expected]);
    assert_eq!((report.points, report.triggers), (0, 0), "no use in dropping it 20,000 times");
}

#[test]
fn a_task_that_is_alive_is_reported() {
    let said = said(|_| Scene::new(async { drop(spawn_local(sleep(ms(5)))) }));
    assert_eq!(said, ["end: the subject returned, but alive of its own: 1 task"]);
}

#[test]
fn a_task_that_was_aborted_but_has_not_ended_is_reported() {
    let said = said(|_| {
        Scene::new(async {
            let task = AbortOnDropHandle::new(spawn_local(sleep(ms(5))));
            sleep(ms(1)).await;
            drop(task);
        })
    });
    // Who is dropped cannot wait for that end, who returns can.
    assert_eq!(said, ["end: the subject returned, but alive of its own: 1 task"]);
}

#[test]
fn a_task_that_may_outlive_the_subject_must_end_by_itself() {
    let scene = |work| move |_: &Parts| Scene::new(async move { drop(spawn_local(sleep(work))) }).outlived();
    assert_eq!(said(scene(ms(5))), [""; 0]);
    let said = said(scene(Duration::from_secs(7200)));
    assert_eq!(said, ["end: alive an hour later: 1 task"]);
}

#[test]
fn a_child_that_is_alive_is_reported_by_its_name() {
    let shelf = RefCell::new(Vec::new());
    let said = said(|parts| {
        shelf.borrow_mut().clear();
        shelf.borrow_mut().push(parts.child("spare", pending::<()>()));
        Scene::new(ready(()))
    });
    assert_eq!(
        said,
        [
            "end: the subject returned, but alive of its own: 1 of child 'spare'",
            "end: alive an hour later: 1 of child 'spare'",
            "unpolled: the subject was dropped, but alive of its own: 1 of child 'spare'",
            "unpolled: alive an hour later: 1 of child 'spare'",
        ]
    );
}

#[test]
fn a_child_inside_a_future_that_is_ready_is_no_leak() {
    // `Timeout` holds its future until it is dropped, which `.await` does at once.
    let report = explore(|parts| {
        Scene::new(timeout(ms(5), parts.child("slow", sleep(ms(10))))).check(|ended| {
            assert!(!matches!(ended, Ended::Returned(Ok(()))), "{ended:?}");
        })
    });
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!((report.points, report.triggers), (4, 2));
}

#[test]
fn a_bystander_that_waits_is_reported() {
    let said = said(|_| {
        let (sender, receiver) = oneshot::channel::<()>();
        let leak = Rc::new(Cell::new(Some(sender)));
        let kept = leak.clone();
        Scene::new(async move {
            sleep(ms(5)).await;
            leak.take();
        })
        .alongside(ready(()))
        .alongside(async move { drop(receiver.await) })
        .check(move |_| drop(kept))
    });
    let waits = |point| {
        format!("{point}: bystander 2 of 2 still waits an hour later: something meant for it was lost")
    };
    assert_eq!(said, ["unpolled", "suspended:1", "waiting:1", "woken:1"].map(waits));
}

#[test]
fn a_bystander_that_panics_is_reported() {
    let said = said(|_| Scene::new(ready(())).alongside(async { panic!("no reply") }));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("end: bystander 1 of 1 failed: "), "{said:?}");
    assert!(said[0].ends_with("panicked with message \"no reply\""), "{said:?}");
}

#[test]
fn a_panic_that_is_swallowed_is_reported() {
    let scene = |parts: &Parts| {
        let child = parts.child("child", sleep(ms(1)));
        Scene::new(async { AbortOnDropHandle::new(spawn_local(child)).await.is_ok() })
    };
    let swallowed =
        |poll| format!("Panic:child:{poll}/end: the subject returned as if its child had not panicked");
    assert_eq!(said(scene), [0, 1].map(swallowed));
    assert_eq!(said(|parts| scene(parts).returns_panics()), [""; 0]);
}

#[test]
fn a_panic_of_the_subject_is_reported() {
    let said = said(|_| {
        Scene::new(async {
            sleep(ms(5)).await;
            panic!("out of range");
        })
    });
    assert_eq!(said, ["end: the subject panicked: out of range"]);
}

#[test]
fn a_panic_in_a_drop_is_reported() {
    let said = said(|parts| {
        let child = parts.child("child", sleep(ms(1)));
        Scene::new(async {
            let bomb = Bomb;
            let _ = AbortOnDropHandle::new(spawn_local(child)).await;
            yield_now().await;
            std::mem::forget(bomb);
        })
        .returns_panics()
    });
    let boom = |point| format!("{point}: the subject panicked while it was dropped: boom");
    // Also where a child had panicked before: that panic is another one.
    let points = [
        "suspended:1",
        "waiting:1",
        "woken:1",
        "suspended:2",
        "woken:2",
        "Panic:child:0/woken:1",
        "Panic:child:0/suspended:2",
        "Panic:child:0/woken:2",
        "Panic:child:1/woken:1",
        "Panic:child:1/suspended:2",
        "Panic:child:1/woken:2",
    ];
    assert_eq!(said, points.map(boom));
}

#[test]
fn a_check_that_fails_is_reported() {
    let scene = |parts: &Parts| {
        let child = parts.child("child", ready(7));
        Scene::new(child).check(|ended| match ended {
            Ended::Dropped => panic!("dropped"),
            Ended::Returned(number) => panic!("returned {number}"),
            Ended::Panicked(message) => panic!("panicked: {message}"),
        })
    };
    assert_eq!(
        said(scene),
        ["end: returned 7", "unpolled: dropped", "Panic:child:0/end: panicked: panic injected by the sweep"]
    );
}

#[test]
fn a_random_scene_is_tried_eight_times() {
    let runs = Cell::new(0);
    let scene = |_: &Parts| {
        runs.update(|runs| runs + 1);
        Scene::new(sleep(ms(5)))
    };
    let plain = explore(scene);
    assert_eq!((plain.points, runs.replace(0)), (4, 5), "each point, and the end, once");
    let random = explore(|parts| scene(parts).random());
    assert_eq!((random.points, runs.get()), (4, 8 * 5));
}

#[test]
fn a_random_failure_is_found_in_one_of_eight_tries() {
    let runs = Cell::new(0);
    let report = explore(|_| {
        runs.update(|runs| runs + 1);
        let seventh = runs.get() == 7;
        Scene::new(ready(())).random().check(move |_| assert!(!seventh, "the unlucky one"))
    });
    assert_eq!(report.violations, [("end".to_owned(), "the unlucky one".to_owned())]);
}

// What the sweep says.

#[test]
fn a_report_counts_and_names() {
    let mut report = Report { points: 4, triggers: 3, triggered_points: 2, violations: Vec::new() };
    let counts = "drops: 4, triggers: 3, drops after a trigger: 2";
    assert_eq!(report.to_string(), format!("{counts}, violations: 0"));
    report.violations.push(("woken:1".to_owned(), "a permit was lost".to_owned()));
    assert_eq!(report.to_string(), format!("{counts}, violations: 1\n  woken:1: a permit was lost"));
    report.violations.resize(12, ("end".to_owned(), "late".to_owned()));
    let rest = "\n  end: late".repeat(9);
    let expected = format!("{counts}, violations: 12\n  woken:1: a permit was lost{rest}\n  and 2 more");
    assert_eq!(report.to_string(), expected);
}

#[test]
fn a_clean_sweep_returns_its_report() {
    let report = sweep(|_| Scene::new(sleep(ms(5))));
    assert_eq!((report.points, report.triggers, report.triggered_points), (4, 0, 0));
}

/// The two tests below also run this one, alone and in a process of its own.
#[test]
#[should_panic(
    expected = "repeat the first one: SWEEP_POINT='woken:1' cargo test -p support --test sweep -- "
)]
fn a_lost_item_fails_the_sweep() {
    sweep(|_| {
        let (sender, receiver) = mpsc::channel(1);
        let left = Rc::new(RefCell::new(receiver));
        let (receiver, taken) = (left.clone(), Rc::new(Cell::new(0)));
        let take = taken.clone();
        Scene::new(async move {
            let (hand, handed) = oneshot::channel();
            let carrier = AbortOnDropHandle::new(spawn_local(async move {
                let item = poll_fn(|context| receiver.borrow_mut().poll_recv(context)).await;
                let _ = hand.send(item);
            }));
            take.set(usize::from(handed.await.is_ok()));
            drop(carrier.await);
        })
        .alongside(async move {
            sleep(ms(5)).await;
            sender.send("item").await.expect("the receiver is in the scene");
        })
        .check(move |_| assert_eq!(taken.get() + left.borrow().len(), 1, "the item is here or there"))
    });
}

/// Runs a test of this file in a process of its own.
#[expect(clippy::disallowed_methods, reason = "no runtime is blocked: this is a plain test")]
fn run(point: Option<&str>, arguments: &[&str]) -> Output {
    let mut program = Command::new(std::env::current_exe().expect("this test is a program"));
    program.args(arguments).env("CARGO_PKG_NAME", "support").env_remove("SWEEP_POINT");
    program.envs(point.map(|point| ("SWEEP_POINT", point))).output().expect("it starts")
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn the_printed_command_repeats_the_point_alone() {
    let whole =
        text(&run(None, &["--test-threads", "2", "--exact", "a_lost_item_fails_the_sweep", "--nocapture"]));
    let (_, command) = whole.split_once("repeat the first one: ").expect(&whole);
    let command = command.lines().next().expect(&whole);
    assert_eq!(
        command,
        "SWEEP_POINT='woken:1' cargo test -p support --test sweep -- --exact a_lost_item_fails_the_sweep --nocapture"
    );
    let (_, arguments) = command.split_once(" -- ").unwrap();
    let repeated = run(Some("woken:1"), &arguments.split(' ').collect::<Vec<_>>());
    assert!(repeated.status.success(), "it fails as the test expects: {}", text(&repeated));
    let said = text(&repeated);
    assert!(said.contains("drops: 1, triggers: 0, drops after a trigger: 0, violations: 1"), "{said}");
    assert!(said.contains("woken:1: assertion `left == right` failed: the item is here or there"), "{said}");
}

#[test]
fn the_other_points_are_left_out() {
    let other = run(Some("suspended:1"), &["--exact", "a_lost_item_fails_the_sweep", "--nocapture"]);
    let said = text(&other);
    assert!(!other.status.success() && said.contains("test did not panic as expected"), "{said}");
    assert!(said.contains("drops: 1, triggers: 0, drops after a trigger: 0, violations: 0"), "{said}");
}

#[test]
fn a_point_alone_is_tried_until_it_fails() {
    let alone = std::env::var("SWEEP_POINT").is_ok();
    let runs = Cell::new(0);
    let report = explore(|_| {
        runs.update(|runs| runs + 1);
        let rare = runs.get() == 30;
        Scene::new(sleep(ms(5))).check(move |_| assert!(!rare, "the one in thirty"))
    });
    if alone {
        assert_eq!(report.violations, [("woken:1".to_owned(), "the one in thirty".to_owned())]);
    } else {
        assert!(report.violations.is_empty(), "{report}");
        let alone = run(Some("woken:1"), &["--exact", "a_point_alone_is_tried_until_it_fails"]);
        assert!(alone.status.success() && text(&alone).contains("1 passed"), "{}", text(&alone));
    }
}
