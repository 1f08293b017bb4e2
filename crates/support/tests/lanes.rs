//! What `support::lanes` records and draws. Pictures of virtual time are golden files: `UPDATE=1` writes them anew.
#![cfg(feature = "lanes")]

use std::collections::HashMap;
use std::fs;
use std::future::{Future, pending, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use futures::future::{join_all, try_join_all};
use support::lanes::{
    Activity, End, LaneExt, LaneFacts, Picture, PictureArgs, Reason, Style, level, record, try_record,
    waiting,
};
use tokio::sync::{Barrier, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use unicode_width::UnicodeWidthStr;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn named(picture: &Picture, name: &str) -> LaneFacts {
    picture.lanes().into_iter().find(|lane| lane.name == name).unwrap_or_else(|| panic!("no lane {name}"))
}

// --------------------------------------------------------------------------------------------------- golden files

fn golden(file: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, drawn).expect("the golden file is writable");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == drawn, "{file} has changed; UPDATE=1 accepts what is drawn now:\n{drawn}");
}

fn golden_pictures(name: &str, picture: &Picture) {
    golden(&format!("{name}.txt"), &(picture.text(100, Style::UNICODE) + "\n"));
    golden(&format!("{name}.ascii.txt"), &(picture.text(100, Style::ASCII) + "\n"));
    golden(&format!("{name}.svg"), &picture.svg());
}

/// Four fetches, two at a time; the third fails while the fourth is still queued.
async fn gather() -> Picture {
    let limit = Semaphore::new(2);
    let fetch = async |time, fails| {
        let _permit = waiting("permit", limit.acquire()).await;
        sleep(ms(time)).await;
        if fails { Err("404") } else { Ok(()) }
    };
    let body = async {
        let fetches = [(30, false), (50, false), (20, true), (30, false)].into_iter().enumerate();
        try_join_all(fetches.map(|(n, (time, fails))| fetch(time, fails).try_lane(format!("fetch {n}"))))
            .await
    };
    let (result, picture) = try_record("gather", body).await;
    assert_eq!(result, Err("404"));
    picture
}

#[tokio::test(start_paused = true)]
async fn gather_is_drawn() {
    let picture = gather().await;
    assert_eq!(
        picture.caption(),
        "4 fetches, 2 at a time: fetch 2 failed at 50 ms, 1 cancelled before it started; \
         50 ms instead of 100 ms one by one"
    );
    let ends: Vec<_> = picture.lanes().iter().map(|lane| lane.end).collect();
    let [ok, error, cancelled] = [End::Ok, End::Error, End::Cancelled].map(Some);
    assert_eq!(ends, [error, ok, ok, error, cancelled]);
    let fetch = named(&picture, "fetch 2");
    assert_eq!((fetch.depth, fetch.owner, fetch.message.as_deref()), (1, Some(0), Some("404")));
    assert_eq!(
        (fetch.from, fetch.to, fetch.waited("permit"), fetch.waited("io")),
        (ms(0), ms(50), ms(30), ms(20))
    );
    assert!(fetch.started && !fetch.leaked);
    assert!(!named(&picture, "fetch 3").started);
    golden_pictures("gather", &picture);
}

#[tokio::test(start_paused = true)]
async fn wrong_is_drawn_beside_right() {
    let fetch = async |n: u64| {
        level("in flight", 1);
        sleep(ms(40 * n)).await;
        level("in flight", 0);
    };
    let one_by_one = async {
        for n in 1..4 {
            fetch(n).lane(format!("fetch {n}")).await;
        }
    };
    let (_, wrong) = record("await in a loop", one_by_one).await;
    let together = async { join_all((1..4).map(|n| fetch(n).lane(format!("fetch {n}")))).await };
    let (_, right) = record("join_all", together).await;
    let both = wrong.beside(right);
    assert_eq!(
        both.caption(),
        "await in a loop: 3 fetches, 1 at a time: all ok; 240 ms one by one\n\
         join_all: 3 fetches, 3 at a time: all ok; 120 ms instead of 240 ms one by one"
    );
    let roots: Vec<_> = both.lanes().iter().map(|lane| lane.owner).collect();
    assert_eq!(roots, [None, Some(0), Some(0), Some(0), None, Some(4), Some(4), Some(4)]);
    golden_pictures("beside", &both);
}

#[tokio::test(start_paused = true)]
async fn leaks_are_drawn() {
    let body = async {
        let order = async {
            sleep(ms(20)).await;
            tokio::spawn(sleep(ms(30)).lane("send mail"));
            tokio::spawn(sleep(ms(500)).lane("write audit log"));
            sleep(ms(10)).await;
        };
        order.lane("order").await;
        sleep(ms(40)).lane("answer").await;
    };
    let (_, picture) = record("handler", body).await;
    let mail = named(&picture, "send mail");
    assert_eq!((mail.end, mail.to, mail.leaked), (Some(End::Ok), ms(50), true));
    let log = named(&picture, "write audit log");
    assert_eq!((log.end, log.to, log.leaked), (None, ms(70), true));
    let caption = picture.caption();
    assert!(caption.contains("write audit log leaked (still running)"), "{caption}");
    assert!(caption.contains("send mail leaked (outlived its owner by 20 ms)"), "{caption}");
    golden_pictures("leak", &picture);
}

/// Every texture that virtual time can show, and every end.
async fn everything() -> Picture {
    let semaphore = Semaphore::new(1);
    let lock = tokio::sync::Mutex::new(());
    let (send, mut items) = mpsc::channel(4);
    let body = async {
        let never = async {}.lane("never polled");
        let holder = async {
            let (_permit, _guard) = (semaphore.acquire().await, lock.lock().await);
            waiting("timer", sleep(ms(40))).await;
            for _ in 0..2 {
                let _ = send.send(()).await;
                sleep(ms(10)).await;
                level("depth", send.max_capacity() - send.capacity());
            }
        };
        let needs_permit = async {
            let _permit = waiting("permit", semaphore.acquire()).await;
            waiting("quota", sleep(ms(30))).await;
            Err::<(), _>("refused")
        };
        let needs_lock = async {
            let _guard = waiting("lock", lock.lock()).await;
            pending::<()>().await
        };
        let consumer = async {
            for _ in 0..2 {
                waiting("queue", items.recv()).await;
                level("depth", items.len());
                sleep(ms(22)).await;
            }
        };
        let panics = tokio::spawn(
            async {
                sleep(ms(50)).await;
                panic!("on purpose")
            }
            .lane("panics"),
        );
        let (_, _, _, _, _) = tokio::join!(
            holder.lane("holds both"),
            needs_permit.try_lane("needs a permit"),
            timeout(ms(80), needs_lock.lane("guarded")).try_lane("needs the lock"),
            consumer.lane("consumer"),
            panics,
        );
        drop(never);
    };
    record("everything", body).await.1
}

#[tokio::test(start_paused = true)]
async fn every_texture_and_end_is_drawn() {
    let picture = everything().await;
    let end = |name| named(&picture, name).end;
    assert_eq!(end("never polled"), Some(End::Cancelled));
    assert_eq!(end("holds both"), Some(End::Ok));
    assert_eq!(end("needs a permit"), Some(End::Error));
    assert_eq!(end("needs the lock"), Some(End::TimedOut));
    assert_eq!(end("guarded"), Some(End::Cancelled));
    assert_eq!(end("panics"), Some(End::Panicked));
    golden_pictures("everything", &picture);
}

/// A hundred fetches, twenty at a time, two of which time out.
async fn crowd() -> Picture {
    let limit = Semaphore::new(20);
    let fetch = async |n: u64| {
        let _permit = waiting("permit", limit.acquire()).await;
        level("permits in use", 20 - limit.available_permits());
        let time = if n % 40 == 17 { ms(500) } else { ms(10 + n * 7 % 40) };
        let result = timeout(ms(90), sleep(time)).await;
        level("permits in use", 19 - limit.available_permits());
        result
    };
    let body = async { join_all((0..100).map(|n| fetch(n).try_lane(format!("fetch {n}")))).await };
    record("crowd", body).await.1
}

#[tokio::test(start_paused = true)]
async fn many_equal_lanes_are_drawn_in_one() {
    let picture = crowd().await;
    golden_pictures("crowd", &picture);
}

// ------------------------------------------------------------------------------------------------- what is recorded

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_never_polled_is_cancelled_before_it_started() {
    let body = async {
        let unused = sleep(ms(1)).lane("unused");
        sleep(ms(30)).await;
        drop(unused);
    };
    let (_, picture) = record("root", body).await;
    let unused = named(&picture, "unused");
    assert_eq!((unused.end, unused.started, unused.polls), (Some(End::Cancelled), false, 0));
    assert_eq!((unused.from, unused.to), (ms(0), ms(30)));
    assert_eq!(unused.spans.iter().map(|span| span.activity).collect::<Vec<_>>(), [Activity::NotStarted]);
    assert_eq!(picture.caption(), "unused: 1 cancelled before it started; 30 ms");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_polled_and_dropped_at_the_same_moment_has_started() {
    let body = async {
        let mut lane = pin!(pending::<()>().lane("polled"));
        poll_fn(|context| {
            assert!(lane.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    };
    let (_, picture) = record("root", body).await;
    assert!(named(&picture, "polled").started);
}

#[tokio::test(start_paused = true)]
async fn an_end_can_be_read_from_any_output() {
    let body = async {
        let status = async |code: u32| code;
        let end = |code: &u32| if *code == 504 { End::TimedOut } else { End::Ok };
        status(200).lane_with("200", end).await;
        status(504).lane_with("504", end).await;
        let late = timeout(ms(5), pending::<()>()).try_lane("elapsed").await;
        assert!(late.is_err());
    };
    let (_, picture) = record("root", body).await;
    assert_eq!(named(&picture, "200").end, Some(End::Ok));
    assert_eq!(named(&picture, "504").end, Some(End::TimedOut));
    assert_eq!(named(&picture, "elapsed").end, Some(End::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn the_root_of_try_record_ends_as_its_result_does() {
    let (_, ok) = try_record("ok", async { Ok::<_, String>(()) }).await;
    let (_, failed) = try_record("failed", async { Err::<(), _>("no route") }).await;
    assert_eq!((ok.lanes()[0].end, ok.caption()), (Some(End::Ok), "ok; 0 ms".into()));
    assert_eq!(
        (failed.lanes()[0].end, failed.caption()),
        (Some(End::Error), "failed failed at 0 ms; 0 ms".into())
    );
    assert_eq!(failed.lanes()[0].message.as_deref(), Some("no route"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_lane_and_cancels_those_inside() {
    let body = async {
        let inner = async {
            let mut child = pin!(pending::<()>().lane("child"));
            poll_fn(|context| {
                assert!(child.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            panic!("on purpose")
        };
        let joined = tokio::spawn(inner.lane("panics")).await;
        assert!(joined.is_err());
        sleep(ms(1)).lane("after").await;
    };
    let (_, picture) = record("root", body).await;
    assert_eq!(named(&picture, "panics").end, Some(End::Panicked));
    let child = named(&picture, "child");
    assert_eq!((child.depth, child.end, child.leaked), (2, Some(End::Cancelled), false));
    assert_eq!(named(&picture, "after").depth, 1, "the lane that panicked is no longer the current one");
}

#[tokio::test(start_paused = true)]
async fn the_innermost_reason_counts_and_ends_with_its_wait() {
    let body = async {
        let inner = async {
            waiting("timer", sleep(ms(10))).await;
            sleep(ms(10)).await;
        };
        waiting("queue", inner).await;
        // The losing branch is dropped while it waits.
        tokio::select! {
            () = waiting("lease", pending()) => unreachable!(),
            () = sleep(ms(10)) => (),
        }
        sleep(ms(10)).await;
    };
    let (_, picture) = record("root", async { body.lane("lane").await }).await;
    let lane = named(&picture, "lane");
    let waits: Vec<_> = lane.spans.iter().map(|span| (span.activity, span.to)).collect();
    let expected = [(Reason::Timer, 10), (Reason::Queue, 20), (Reason::Other("lease"), 30), (Reason::Io, 40)];
    assert_eq!(waits, expected.map(|(reason, to)| (Activity::Waiting(reason), ms(to))));
    assert_eq!(named(&picture, "root").waited("join"), ms(40));
}

#[tokio::test(start_paused = true)]
async fn a_lane_waits_for_its_children_until_the_last_has_ended() {
    let body = async {
        let child = tokio::spawn(sleep(ms(20)).lane("child"));
        sleep(ms(50)).await;
        child.await.unwrap();
    };
    let (_, picture) = record("root", body).await;
    let root = named(&picture, "root");
    assert_eq!((root.waited("join"), root.waited("io")), (ms(20), ms(30)));
}

#[tokio::test(start_paused = true)]
async fn a_lane_belongs_to_where_it_was_named_and_to_what_polls_it() {
    let body = async {
        let outer = async {
            let spawned = tokio::spawn(async { sleep(ms(1)).lane("grandchild").await }.lane("spawned"));
            spawned.await.unwrap();
        };
        outer.lane("outer").await;
        // Named here, polled further inside.
        timeout(ms(9), sleep(ms(1)).lane("work")).try_lane("call").await.unwrap();
        // Named in a task that has no lane: it belongs to the root.
        tokio::spawn(async { sleep(ms(1)).lane("adopted").await }).await.unwrap();
    };
    let (_, picture) = record("root", body).await;
    let lanes = picture.lanes();
    let owner = |name| lanes[named(&picture, name).owner.unwrap()].name.clone();
    assert_eq!(owner("outer"), "root");
    assert_eq!(owner("spawned"), "outer");
    assert_eq!(owner("grandchild"), "spawned");
    assert_eq!(owner("work"), "call");
    assert_eq!(owner("adopted"), "root");
    assert!(lanes.iter().all(|lane| lane.end == Some(End::Ok) && !lane.leaked));
}

/// Its bar has no room: it begins where the picture ends.
#[tokio::test(start_paused = true)]
async fn a_leak_that_begins_at_the_end_is_drawn() {
    let (_, picture) = record("main", async {
        sleep(ms(10)).await;
        drop(tokio::spawn(sleep(ms(20)).lane("goodbye")));
    })
    .await;
    assert!(named(&picture, "goodbye").leaked);
    assert!(picture.text(100, Style::ASCII).contains("goodbye"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_aborted_with_its_owner_is_no_leak() {
    let body = async {
        let work = async {
            let mut tasks = JoinSet::new();
            for n in 0..100 {
                tasks.spawn(pending::<()>().lane(format!("task {n}")));
            }
            while tasks.join_next().await.is_some() {}
        };
        timeout(ms(10), work.lane("work")).await
    };
    let (result, picture) = record("root", body).await;
    assert!(result.is_err());
    assert_eq!(picture.lanes().len(), 102);
    for lane in &picture.lanes()[2..] {
        assert_eq!((lane.end, lane.leaked, lane.to), (Some(End::Cancelled), false, ms(10)), "{}", lane.name);
    }
    assert_eq!(
        picture.caption(),
        "100 tasks, 100 at a time: 100 cancelled at 10 ms; 10 ms instead of 1 s one by one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_after_its_owner_is_a_leak_if_it_ran_or_stayed() {
    let body = async {
        let (go, gone) = oneshot::channel::<()>();
        let owner = async {
            let ran = async {
                gone.await.unwrap();
                pending::<()>().await
            };
            let ran = tokio::spawn(ran.lane("ran"));
            let stayed = tokio::spawn(pending::<()>().lane("stayed"));
            sleep(ms(10)).await;
            (ran, stayed)
        };
        let (ran, stayed) = owner.lane("owner").await;
        go.send(()).unwrap();
        tokio::task::yield_now().await;
        ran.abort();
        assert!(ran.await.unwrap_err().is_cancelled());
        sleep(ms(30)).await;
        stayed.abort();
        assert!(stayed.await.unwrap_err().is_cancelled());
    };
    let (_, picture) = record("root", body).await;
    let (ran, stayed) = (named(&picture, "ran"), named(&picture, "stayed"));
    assert_eq!((ran.end, ran.to, ran.leaked), (Some(End::Cancelled), ms(10), true));
    assert_eq!((stayed.end, stayed.to, stayed.leaked), (Some(End::Cancelled), ms(40), true));
}

#[tokio::test(start_paused = true)]
async fn what_a_lane_holds_is_gone_when_it_ends() {
    let body = async {
        let mut call = pin!(timeout(ms(10), pending::<()>().lane("work")).try_lane("call"));
        assert!(call.as_mut().await.is_err());
        sleep(ms(50)).await;
    };
    let (_, picture) = record("root", body).await;
    let work = named(&picture, "work");
    assert_eq!((work.end, work.to, work.leaked), (Some(End::Cancelled), ms(10), false));
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_after_the_recording_still_works() {
    let (send, receive) = oneshot::channel();
    let mut task = None;
    let body = async {
        let late = async {
            sleep(ms(10)).await;
            sleep(ms(10)).lane("never seen").await;
            send.send(7).unwrap();
        };
        task = Some(tokio::spawn(late.lane("late")));
    };
    let (_, picture) = record("root", body).await;
    assert_eq!(receive.await, Ok(7));
    task.unwrap().await.unwrap();
    assert_eq!(picture.lanes().len(), 2);
    let late = named(&picture, "late");
    assert_eq!((late.end, late.leaked), (None, true));
}

#[tokio::test]
async fn a_poll_that_blocks_is_seen_in_the_lane_that_blocks() {
    let spin = || {
        let start = Instant::now();
        while start.elapsed() < ms(30) {}
    };
    let body = async {
        let blocks = async {
            tokio::task::yield_now().await;
            spin();
            tokio::task::yield_now().await;
        };
        // Polled by the lane around it, whose own code does not block.
        blocks.lane("blocks").await;
    };
    let (_, picture) = record("root", async { body.lane("around").await }).await;
    let blocks = named(&picture, "blocks");
    assert!(blocks.busy() >= ms(30), "{blocks:?}");
    assert!(named(&picture, "around").busy() < ms(30));
    assert!(picture.caption().contains("blocks blocked its thread for"), "{}", picture.caption());
    assert!(picture.text(100, Style::UNICODE).contains("█ busy"));
}

#[tokio::test(start_paused = true)]
async fn outside_a_recording_nothing_is_noted_and_nothing_changes() {
    let value = async {
        level("queue", 3);
        waiting("permit", sleep(ms(5))).await;
        7
    };
    let before = tokio::time::Instant::now();
    assert_eq!(value.lane("lane").await, 7);
    assert_eq!(before.elapsed(), ms(5));
    let failed: Result<(), &str> = async { Err("no") }.try_lane("lane").await;
    assert_eq!(failed, Err("no"));
}

#[tokio::test(start_paused = true)]
async fn lanes_of_an_inner_recording_are_its_own() {
    let body = async {
        sleep(ms(5)).lane("outer lane").await;
        let (_, inner) = record("inner", async { sleep(ms(5)).lane("inner lane").await }).await;
        sleep(ms(5)).lane("outer again").await;
        inner
    };
    let (inner, outer) = record("outer", body).await;
    let names = |picture: &Picture| picture.lanes().into_iter().map(|lane| lane.name).collect::<Vec<_>>();
    assert_eq!(names(&inner), ["inner", "inner lane"]);
    assert_eq!(names(&outer), ["outer", "outer lane", "outer again"]);
    assert_eq!(named(&inner, "inner lane").from, ms(0), "each recording counts from its own start");
}

#[tokio::test(start_paused = true)]
async fn of_two_recordings_neither_takes_a_lane_that_may_be_the_others() {
    let body = |name: &'static str| async move {
        tokio::spawn(async { sleep(ms(5)).lane("whose").await }).await.unwrap();
        sleep(ms(5)).lane(name).await;
    };
    let ((_, left), (_, right)) = tokio::join!(record("left", body("a")), record("right", body("b")));
    assert_eq!(left.lanes().len(), 2);
    assert_eq!(right.lanes().len(), 2);
    assert_eq!(left.lanes()[1].name, "a");
}

#[tokio::test(start_paused = true)]
async fn a_recording_can_be_cancelled() {
    let body = async { tokio::join!(pending::<()>().lane("a"), pending::<()>().lane("b")) };
    assert!(timeout(ms(10), record("cancelled", body)).await.is_err());
    // It has left nothing behind that would take these lanes.
    let (_, picture) = record("next", async {
        tokio::spawn(async { sleep(ms(1)).lane("spawned").await }).await.unwrap();
    })
    .await;
    assert_eq!(picture.lanes().len(), 2);
}

#[test]
fn many_threads_record_many_lanes_and_none_is_lost() {
    const TASKS: usize = 200;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for _ in 0..3 {
        let (permits, polled) = (Arc::new(Semaphore::new(3)), Arc::new(AtomicUsize::new(0)));
        let all_there = Arc::new(Barrier::new(TASKS));
        let body = {
            let (permits, polled) = (permits.clone(), polled.clone());
            async move {
                let mut tasks = JoinSet::new();
                for n in 0..TASKS {
                    let (permits, polled, all_there) = (permits.clone(), polled.clone(), all_there.clone());
                    let work = async move {
                        all_there.wait().await;
                        let _permit = waiting("permit", permits.acquire()).await.unwrap();
                        let step = async {
                            polled.fetch_add(1, Ordering::Relaxed);
                            tokio::task::yield_now().await;
                        };
                        step.lane(format!("step {n}")).await;
                        if n % 10 == 0 { Err("tenth") } else { Ok(()) }
                    };
                    tasks.spawn(work.try_lane(format!("task {n}")));
                }
                tasks.join_all().await.len()
            }
        };
        let (count, picture) = runtime.block_on(async { tokio::spawn(record("root", body)).await.unwrap() });
        assert_eq!((count, polled.load(Ordering::Relaxed)), (TASKS, TASKS));
        let lanes = picture.lanes();
        assert_eq!(lanes.len(), 1 + 2 * TASKS);
        let errors = lanes.iter().filter(|lane| lane.end == Some(End::Error)).count();
        assert_eq!(errors, TASKS / 10);
        for lane in &lanes {
            assert!(lane.end.is_some() && !lane.leaked && lane.started && lane.polls > 0, "{lane:?}");
            let gapless = lane.spans.windows(2).all(|pair| pair[0].to == pair[1].from);
            assert!(gapless && lane.from <= lane.to, "{lane:?}");
        }
        for step in lanes.iter().filter(|lane| lane.name.starts_with("step")) {
            let owner = &lanes[step.owner.unwrap()];
            assert_eq!(owner.name.trim_start_matches("task "), step.name.trim_start_matches("step "));
        }
        assert!(picture.caption().starts_with("200 tasks, "), "{}", picture.caption());
    }
}

#[test]
fn without_a_runtime_a_run_is_recorded_too() {
    let waker = Waker::noop();
    let mut run = pin!(record("root", async { async { 7 }.lane("lane").await }));
    let Poll::Ready((value, picture)) = run.as_mut().poll(&mut Context::from_waker(waker)) else {
        panic!("nothing in it waits")
    };
    assert_eq!((value, picture.lanes().len()), (7, 2));
}

#[test]
fn what_is_recorded_stays_sendable() {
    fn sendable<T: Send>(_: &T) {}
    let run = record("root", async { waiting("permit", std::future::pending::<()>()).lane("lane").await });
    sendable(&run);
}

/// A name that must not be asked for.
struct Unread;

impl From<Unread> for String {
    fn from(_: Unread) -> String {
        panic!("the name was read")
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_recording_a_name_is_not_even_read() {
    sleep(ms(1)).lane(Unread).await;
    let recorded = tokio::spawn(record("root", async { sleep(ms(1)).lane(Unread).await }));
    assert!(recorded.await.unwrap_err().is_panic());
}

// --------------------------------------------------------------------------------------------------------- wakers

/// Polls a lane by hand inside a recording.
fn by_hand(check: impl FnOnce(&Picture), body: impl Future<Output = ()>) {
    let mut run = pin!(record("root", body));
    let Poll::Ready(((), picture)) = run.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the body waits")
    };
    check(&picture);
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_wake_reaches_the_waker_that_the_lane_was_polled_with() {
    by_hand(|picture| assert_eq!(named(picture, "lane").polls, 3), async {
        let seen: Mutex<Vec<Waker>> = Mutex::default();
        let mut lane = pin!(
            poll_fn(|context| {
                seen.lock().unwrap().push(context.waker().clone());
                Poll::<()>::Pending
            })
            .lane("lane")
        );
        let counters = [0, 0].map(|zero| Arc::new(Counting(AtomicUsize::new(zero))));
        let [first, second] = counters.clone().map(Waker::from);
        for waker in [&first, &first, &second] {
            assert!(lane.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        let seen = seen.lock().unwrap();
        assert!(seen[0].will_wake(&seen[1]), "the same waker is wrapped once");
        assert!(!seen[1].will_wake(&seen[2]));
        seen[0].wake_by_ref();
        seen[2].wake_by_ref();
        seen[2].wake_by_ref();
        assert_eq!(counters.map(|counter| counter.0.load(Ordering::Relaxed)), [1, 2]);
    });
}

#[tokio::test(start_paused = true)]
async fn who_woke_whom_is_known() {
    let picture = gather().await;
    let svg = picture.svg();
    assert!(svg.contains("<title>fetch 0 woke fetch 2 (permit) at 30 ms</title>"), "{svg}");
    assert!(svg.contains("<title>fetch 1 woke fetch 3 (permit) at 50 ms</title>"), "{svg}");
    assert_eq!(svg.matches(" woke ").count(), 2, "a wake on its way through the root is not the root's");
    // A hundred lanes that wake each other are not drawn as arrows.
    assert_eq!(crowd().await.svg().matches(" woke ").count(), 0);
}

// ------------------------------------------------------------------------------------------------------- the text

/// Names that are wide, long, combining, or hold what would break a line.
async fn awkward() -> Picture {
    let body = async {
        let names = [
            "取得データ".repeat(8),
            "e\u{301}".repeat(40),
            "a\nb\t\u{1b}[31mc".into(),
            String::new(),
            "x".repeat(300),
        ];
        let nested = async { sleep(ms(3)).lane("深い".repeat(30)).await };
        let deeper = async { async { nested.lane("level 3").await }.lane("level 2").await };
        tokio::join!(
            join_all(names.map(|name| waiting("どこか遠い資源", sleep(ms(5))).lane(name))),
            deeper.lane("level 1"),
            pending::<()>().lane("未開始").map_done(),
        );
        level("深さ", 12);
    };
    record("根".repeat(60), body).await.1
}

trait MapDone: Future + Sized {
    /// Polls it once.
    async fn map_done(self) {
        let mut this = pin!(self);
        poll_fn(|context| {
            let _ = this.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }
}

impl<F: Future> MapDone for F {}

#[tokio::test(start_paused = true)]
async fn no_line_is_wider_than_asked_for() {
    let scenes = [
        gather().await,
        everything().await,
        crowd().await,
        awkward().await,
        crowd().await.beside(awkward().await),
    ];
    for picture in &scenes {
        for width in 24..=200 {
            for style in [Style::UNICODE, Style::ASCII] {
                let text = picture.text(width, style);
                let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap();
                assert!(widest <= width, "{widest} of {width}:\n{text}");
                assert!(!text.contains(['\u{1b}', '\t']), "{text}");
            }
        }
        assert!(picture.text(60, Style::ASCII).is_ascii());
        assert_eq!(picture.text(5, Style::UNICODE), picture.text(24, Style::UNICODE));
    }
}

#[tokio::test(start_paused = true)]
async fn colour_adds_nothing_but_colour() {
    let picture = everything().await;
    let coloured = picture.text(90, Style { ascii: false, colour: true });
    assert!(coloured.contains('\u{1b}'));
    let plain = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(plain, picture.text(90, Style::UNICODE));
}

#[tokio::test(start_paused = true)]
async fn the_legend_names_what_occurs_and_nothing_else() {
    let (_, picture) = record("root", async { sleep(ms(5)).lane("a").await }).await;
    assert_eq!(picture.text(80, Style::UNICODE).lines().last(), Some("━ io   ─ join   ✓ ok"));
    // Nor what is too short to be drawn.
    let body = async {
        let lane = sleep(ms(4000)).lane("a");
        sleep(ms(1)).await;
        lane.await;
    };
    let (_, picture) = record("root", body).await;
    assert_eq!(named(&picture, "a").spans[0].activity, Activity::NotStarted);
    assert_eq!(picture.text(80, Style::UNICODE).lines().last(), Some("━ io   ─ join   ✓ ok"));
    let svg = picture.svg();
    assert!(svg.contains(">join<") && !svg.contains("not started"), "{svg}");
}

#[tokio::test(start_paused = true)]
async fn siblings_fold_by_stem_and_end() {
    let body = async {
        let jobs = (0..13)
            .map(|n| async move { if n == 6 { Err("six") } else { Ok(()) } }.try_lane(format!("job {n}")));
        let others = (0..5).map(|n| async { Ok::<_, &str>(()) }.try_lane(format!("other {n}")));
        (join_all(jobs).await, join_all(others).await)
    };
    let (_, picture) = record("root", body).await;
    let text = picture.text(80, Style::UNICODE);
    let names: Vec<_> = text.lines().filter(|line| line.starts_with(['├', '└'])).collect();
    let names: Vec<_> = names.iter().map(|line| line.trim_end_matches(['✓', '✗']).trim()).collect();
    let jobs = ["├ job 0", "├ job 1", "├ job 2", "├ job 3..10 ×7", "├ job 6", "├ job 11", "├ job 12"];
    let others = ["├ other 0", "├ other 1", "├ other 2", "├ other 3", "└ other 4"];
    assert_eq!(names, [&jobs[..], &others].concat());
}

#[tokio::test(start_paused = true)]
async fn captions_count_in_words() {
    let caption = async |names: &[&str]| {
        let body = async { join_all(names.iter().map(|name| sleep(ms(10)).lane(*name))).await };
        record("root", body).await.1.caption()
    };
    let rest = ": all ok; 10 ms instead of 20 ms one by one";
    assert_eq!(caption(&["query 1", "query 2"]).await, format!("2 queries, 2 at a time{rest}"));
    assert_eq!(caption(&["GET /page/1", "GET /page/2"]).await, format!("2 × GET /page, 2 at a time{rest}"));
    assert_eq!(caption(&["reader", "writer"]).await, format!("2 lanes, 2 at a time{rest}"));
    let both = caption(&["reader 1", "reader 2", "box 1", "box 2"]).await;
    assert_eq!(both, "2 readers and 2 boxes, 4 at a time: all ok; 10 ms instead of 40 ms one by one");
    assert_eq!(caption(&["alone"]).await, "alone: ok; 10 ms");
}

#[tokio::test(start_paused = true)]
async fn waits_without_work_are_told_from_work() {
    let body = async {
        for n in 0..2 {
            sleep(ms(40)).await;
            sleep(ms(10)).lane(format!("attempt {n}")).await;
        }
    };
    let (_, picture) = record("root", body).await;
    assert_eq!(picture.caption(), "2 attempts, 1 at a time: all ok; 100 ms for 20 ms of work");
}

#[tokio::test(start_paused = true)]
async fn times_have_three_digits_and_a_unit() {
    let shown = async |time| record("root", async move { sleep(time).await }).await.1.caption();
    for (time, expected) in [
        (Duration::ZERO, "ok; 0 ms"),
        (ms(1), "ok; 1 ms"),
        (ms(12), "ok; 12 ms"),
        (ms(999), "ok; 999 ms"),
        (ms(1000), "ok; 1 s"),
        (ms(1234), "ok; 1.23 s"),
        (ms(12_340), "ok; 12.3 s"),
        (ms(9_996), "ok; 10 s"),
        (ms(3_600_000), "ok; 3600 s"),
    ] {
        assert_eq!(shown(time).await, expected);
    }
}

// -------------------------------------------------------------------------------------------------- SVG and trace

/// Every tag closed, in order: as much of XML as the pictures use. Gives the texts between tags.
fn well_formed(svg: &str) -> Vec<String> {
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag is closed");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        match tag.starts_with('/') {
            true => assert_eq!(open.pop(), Some(name.to_string()), "{tag}"),
            false if tag.ends_with('/') => (),
            false => open.push(name.to_string()),
        }
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)), "{text}");
        }
        texts.push(text.to_string());
    }
    assert!(open.is_empty(), "{open:?}");
    texts
}

#[tokio::test(start_paused = true)]
async fn svg_is_self_contained_and_names_are_escaped() {
    let body = async {
        sleep(ms(5)).lane("</svg><script>alert(\"1\")</script>&").await;
        sleep(ms(5)).lane("control \u{1} \u{ffff}").await;
    };
    let (_, picture) = record("a < b & c", body).await;
    let svg = picture.svg();
    let texts = well_formed(&svg);
    assert!(texts.iter().any(|text| text == "a &lt; b &amp; c"));
    assert!(!svg.contains("<script") && !svg.contains('\u{1}') && !svg.contains('\u{ffff}'));
    assert!(svg.contains("role=\"img\"") && svg.contains("prefers-color-scheme:dark"));
    assert_eq!(svg.matches("http").count(), 1, "nothing but the namespace is an address");
    for picture in [gather().await, everything().await, crowd().await, awkward().await] {
        let svg = picture.svg();
        let texts = well_formed(&svg);
        assert!(texts.contains(&picture.caption()), "the description carries the caption");
    }
}

#[tokio::test(start_paused = true)]
async fn twelve_lanes_stay_under_twenty_kilobytes_however_restless_they_are() {
    let permits = Semaphore::new(1);
    let restless = async |n: u64| {
        for step in 0..200 {
            let _permit = waiting("permit", permits.acquire()).await;
            level("weight", (step * 5 + n as usize) % 7);
            sleep(ms(1 + n % 3)).await;
        }
    };
    let body = async { join_all((0..12).map(|n| restless(n).lane(format!("a rather long name {n}")))).await };
    let (_, picture) = record("restless", body).await;
    let svg = picture.svg();
    assert!(picture.lanes().iter().map(|lane| lane.spans.len()).sum::<usize>() > 4000);
    assert!(svg.len() < 20_000, "{}", svg.len());
    well_formed(&svg);
    assert!(everything().await.svg().len() < 20_000);
}

#[tokio::test(start_paused = true)]
async fn the_trace_holds_every_lane_wait_wake_and_level() {
    let picture = gather().await.beside(everything().await);
    let trace: serde_json::Value = serde_json::from_str(&picture.trace()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &'static str| events.iter().filter(move |event| event["ph"] == phase);

    let tracks: Vec<_> = of("M").filter(|event| event["name"] == "thread_name").collect();
    let lanes = picture.lanes();
    assert_eq!(
        tracks.iter().map(|track| track["args"]["name"].as_str().unwrap()).collect::<Vec<_>>(),
        lanes.iter().map(|lane| lane.name.as_str()).collect::<Vec<_>>()
    );
    for (track, lane) in tracks.iter().zip(&lanes) {
        let here = |event: &&serde_json::Value| event["pid"] == track["pid"] && event["tid"] == track["tid"];
        let slices: Vec<_> = of("X").filter(here).collect();
        assert_eq!(slices.len(), 1 + lane.spans.len());
        assert_eq!(slices[0]["ts"].as_f64(), Some(lane.from.as_micros() as f64));
        assert_eq!(slices[0]["dur"].as_f64(), Some((lane.to - lane.from).as_micros() as f64));
        assert_eq!(of("i").filter(here).count(), 1);
    }
    let (starts, ends): (Vec<_>, Vec<_>) = (of("s").collect(), of("f").collect());
    assert_eq!(starts.len(), ends.len());
    let ids: HashMap<_, _> = starts.iter().map(|start| (start["id"].as_u64(), start)).collect();
    assert_eq!(ids.len(), starts.len(), "each arrow has an id of its own");
    for end in &ends {
        let start = ids[&end["id"].as_u64()];
        assert!(start["ts"].as_f64() <= end["ts"].as_f64() && start["tid"] != end["tid"]);
        // It starts at a slice of the waker's track.
        let at = start["ts"].as_f64().unwrap();
        let covered = of("X").any(|slice| {
            let (from, length) = (slice["ts"].as_f64().unwrap(), slice["dur"].as_f64().unwrap());
            slice["pid"] == start["pid"] && slice["tid"] == start["tid"] && from <= at && at < from + length
        });
        assert!(covered, "{start}");
    }
    let depth: Vec<_> = of("C").map(|event| event["args"]["depth"].as_u64().unwrap()).collect();
    assert_eq!(depth, [0, 1, 0]);
}

// ------------------------------------------------------------------------------------------------ command line

#[derive(Parser)]
#[command(about = "An example of its own")]
struct Example {
    urls: Vec<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

#[test]
fn the_arguments_work_flattened_and_alone() {
    fn flattens<A: Args>() {}
    flattens::<PictureArgs>();
    let example = Example::parse_from(["example", "--svg", "a.svg", "url", "--ascii", "--trace", "b.json"]);
    assert_eq!(example.urls, ["url"]);
    let picture = &example.picture;
    assert_eq!((picture.svg.as_deref(), picture.ascii), (Some(Path::new("a.svg")), true));
    assert_eq!(
        PictureArgs::parse_from(["alone", "--svg", "a.svg", "--ascii", "--trace", "b.json"]),
        example.picture
    );
    let help = <Example as clap::CommandFactory>::command().render_long_help().to_string();
    assert!(help.starts_with("An example of its own"), "{help}");
}

#[tokio::test(start_paused = true)]
async fn show_writes_the_files_and_names_the_one_it_cannot_write() {
    let picture = gather().await;
    let folder = std::env::temp_dir().join(format!("lanes-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (svg, trace) = (folder.join("picture.svg"), folder.join("run.json"));
    let arguments = PictureArgs { svg: Some(svg.clone()), trace: Some(trace.clone()), ascii: true };
    arguments.show(&picture).unwrap();
    assert_eq!(fs::read_to_string(svg).unwrap(), picture.svg());
    assert_eq!(fs::read_to_string(trace).unwrap(), picture.trace());
    let missing = folder.join("nowhere").join("picture.svg");
    let error =
        PictureArgs { svg: Some(missing.clone()), ..PictureArgs::default() }.show(&picture).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    fs::remove_dir_all(folder).unwrap();
}
