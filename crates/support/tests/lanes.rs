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
    Activity, End, LaneExt, LaneFacts, Picture, PictureArgs, Reason, Style, level, record, try_record, waiting,
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
        fs::write(&path, drawn).unwrap();
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
        try_join_all(fetches.map(|(n, (time, fails))| fetch(time, fails).try_lane(format!("fetch {n}")))).await
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
    assert_eq!((fetch.from, fetch.to, fetch.waited("permit"), fetch.waited("io")), (ms(0), ms(50), ms(30), ms(20)));
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
                send.send(()).await.unwrap();
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
