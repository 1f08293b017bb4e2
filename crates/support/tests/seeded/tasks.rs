//! Tasks that outlive their owner, and tasks whose end goes unnoticed.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use support::sweep::{Ended, Fault, Parts, Scene};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet, spawn_local};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::{moment, passed_on, proves, work};

/// A dropped `JoinHandle` lets its task go on alone (tokio #1830).
#[test]
fn a_child_is_detached() {
    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let child = parts.child("child", work());
        Scene::new(async move {
            let child = spawn_local(child);
            let joined = if FIXED { AbortOnDropHandle::new(child).await } else { child.await };
            passed_on(joined);
        })
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// `abort_all` only asks: the group returns while its children still have their cleanup before them.
#[test]
fn a_group_returns_before_its_children_ended() {
    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let parts = parts.clone();
        Scene::new(async move {
            let mut race = JoinSet::new();
            race.spawn_local(parts.child("quick", moment()));
            race.spawn_local(parts.child("slow", work()));
            let first = race.join_next().await;
            if FIXED {
                race.shutdown().await;
            } else {
                race.abort_all();
            }
            first.map(passed_on);
        })
    }
    proves(scene::<false>, scene::<true>, "end");
}

/// `let _ = child.await` throws the child's panic away.
#[test]
fn a_panic_of_a_child_is_swallowed() {
    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let child = parts.child("child", work());
        Scene::new(async move {
            let joined = AbortOnDropHandle::new(spawn_local(child)).await;
            if FIXED {
                passed_on(joined);
            }
        })
    }
    proves(scene::<false>, scene::<true>, "Panic:child");
}

/// `try_join!` over join handles returns at the first error and leaves the other tasks running.
#[test]
fn a_failing_child_leaves_its_siblings_running() {
    async fn both<const FIXED: bool>(
        one: impl Future<Output = Result<(), String>> + 'static,
        other: impl Future<Output = Result<(), String>> + 'static,
    ) -> Result<(), String> {
        if !FIXED {
            let join = async |task: JoinHandle<_>| passed_on(task.await).unwrap_or(Ok(()));
            tokio::try_join!(join(spawn_local(one)), join(spawn_local(other)))?;
            return Ok(());
        }
        let mut tasks = JoinSet::new();
        tasks.spawn_local(one);
        tasks.spawn_local(other);
        while let Some(joined) = tasks.join_next().await {
            if !matches!(joined, Ok(Ok(()))) {
                tasks.shutdown().await;
                return passed_on(joined).unwrap_or(Ok(()));
            }
        }
        Ok(())
    }

    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<Result<(), String>> {
        let child = |name: &'static str, work| {
            let work = async move {
                sleep(work).await;
                Ok(())
            };
            parts.fallible(name, work, move || format!("{name} failed"))
        };
        let (one, other) = (child("one", Duration::from_millis(1)), child("other", Duration::from_millis(2)));
        let parts = parts.clone();
        Scene::new(both::<FIXED>(one, other)).check(move |ended| {
            if let Ended::Returned(result) = ended {
                assert_eq!(result.is_err(), parts.fault() == Some(Fault::Fail), "{result:?}");
            }
        })
    }
    proves(scene::<false>, scene::<true>, "Fail:one");
}

/// The parent counts reports and holds a sender itself: for the report of a child that was aborted it waits for ever.
#[test]
fn an_aborted_child_never_reports() {
    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let parts = parts.clone();
        Scene::new(async move {
            let (report, mut reports) = mpsc::channel(2);
            let children = ["one", "other"].map(|name| {
                let report = report.clone();
                let child = async move {
                    work().await;
                    report.send(name).await.expect("the parent listens until all have reported");
                };
                let child = AbortOnDropHandle::new(spawn_local(parts.child(name, child)));
                parts.abort_with(name, child.abort_handle());
                child
            });
            let own = Some(report).filter(|_| !FIXED);
            let mut seen = 0;
            while seen < children.len() && reports.recv().await.is_some() {
                seen += 1;
            }
            drop(own);
            for child in children {
                passed_on(child.await);
            }
        })
    }
    proves(scene::<false>, scene::<true>, "Abort:");
}

/// Callers share one feed: when the last of them leaves, nobody stops it.
#[test]
fn shared_work_outlives_its_last_caller() {
    struct Feed<const FIXED: bool> {
        latest: watch::Receiver<u32>,
        task: AbortHandle,
    }
    impl<const FIXED: bool> Drop for Feed<FIXED> {
        fn drop(&mut self) {
            if FIXED {
                self.task.abort();
            }
        }
    }
    fn subscribe<const FIXED: bool>(shared: &RefCell<Weak<Feed<FIXED>>>) -> Rc<Feed<FIXED>> {
        let running = shared.borrow().upgrade();
        running.unwrap_or_else(|| {
            let (sender, latest) = watch::channel(0);
            let task = spawn_local(async move {
                loop {
                    sleep(Duration::from_secs(60)).await;
                    sender.send_modify(|latest| *latest += 1);
                }
            });
            let feed = Rc::new(Feed { latest, task: task.abort_handle() });
            shared.replace(Rc::downgrade(&feed));
            feed
        })
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let shared = Rc::new(RefCell::new(Weak::<Feed<FIXED>>::new()));
        let caller = |news| {
            let shared = shared.clone();
            async move {
                let feed = subscribe(&shared);
                let mut latest = feed.latest.clone();
                for _ in 0..news {
                    latest.changed().await.expect("the feed runs as long as somebody follows it");
                }
            }
        };
        // The other caller may still follow the feed when the subject is gone.
        Scene::new(caller(3)).alongside(caller(2)).outlived()
    }
    proves(scene::<false>, scene::<true>, "suspended");
}
