//! `shutdown`: dropped at every point and hurried at every point; tasks that panic, overstay, and start others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use support::sweep::{Ended, Parts, Scene, sweep};
use tasks::{Phase, Shutdown};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

/// A listener that starts a request in the next phase, a request that is finished after it was asked to stop, and one
/// that is stubborn, all with the same permit.
fn scene(parts: &Parts, limit: Duration) -> Scene<()> {
    let permits = Arc::new(Semaphore::new(1));
    let (after, other) = (permits.clone(), permits.clone());
    let (signal, signals) = mpsc::unbounded_channel();
    let (first, parts) = (signal.clone(), parts.clone());
    let alive = Arc::new(AtomicUsize::new(0));
    let still = alive.clone();
    let call = async move {
        let mut shutdown = Shutdown::default();
        let (listener, requests) = (shutdown.phase("listener", limit), shutdown.phase("requests", limit));
        let stop = listener.stopping();
        let (inner, children) = (parts.clone(), requests.clone());
        let accept = async move {
            for _ in 0..2 {
                let (permits, stop) = (permits.clone(), children.stopping());
                let alive = Alive::begin(&alive);
                let request = async move {
                    let _alive = alive;
                    let _ = stop.run_until_cancelled(permits.acquire()).await;
                    sleep(2 * MS).await;
                };
                let _ = children.spawn("request", inner.child("request", request));
                sleep(MS).await;
            }
            stop.cancelled().await;
        };
        let _ = listener.spawn("accept", parts.child("accept", accept));
        let _ = requests.spawn("stubborn", parts.child("stubborn", std::future::pending()));
        let report = shutdown.run(stream::unfold(signals, async |mut it| Some((it.recv().await?, it)))).await;
        assert!(report.left.iter().any(|(_, task)| task.name == "stubborn"));
        assert_eq!(requests.spawn("late", async {}).is_err(), listener.spawn("late", async {}).is_err());
    };
    let later = async move {
        sleep(5 * MS).await;
        let _ = first.send("first");
    };
    Scene::new(call)
        .returns_panics()
        .alongside(async move { drop(other.acquire().await) })
        .alongside(later)
        .stop(move || _ = signal.send("asked"))
        .check(move |_| assert_eq!((after.available_permits(), still.load(Ordering::Relaxed)), (1, 0)))
}

struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn begin(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Alive(alive.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn cancellation_panics_and_second_signals_at_every_point() {
    for limit in [Duration::ZERO, 3 * MS] {
        let report = sweep(|parts| scene(parts, limit));
        assert!(report.points >= 7 && report.triggers > 10, "{report}");
    }
}

/// A phase stops in its own time, and the one after it works on until then.
#[test]
fn order_a_later_phase_takes_tasks_until_its_turn() {
    sweep(|_| {
        let mut shutdown = Shutdown::default();
        let (listener, workers) = (shutdown.phase("listener", 10 * MS), shutdown.phase("workers", 10 * MS));
        let done = Arc::new(AtomicUsize::new(0));
        let (count, after) = (done.clone(), done);
        let call = async move {
            let (stop, later) = (listener.stopping(), workers.clone());
            let last = async move {
                stop.cancelled().await;
                sleep(MS).await;
                let work = async move {
                    sleep(MS).await;
                    count.fetch_add(1, Ordering::Relaxed);
                };
                later.spawn("accepted late", work).expect("it is not their turn yet");
            };
            listener.spawn("accept", last).expect("it takes tasks");
            shutdown.run(stream::iter(["stop"])).await.left.len()
        };
        Scene::new(call).check(move |ended| {
            if let Ended::Returned(left) = ended {
                assert_eq!((left, after.load(Ordering::Relaxed)), (0, 1));
            }
        })
    });
}

/// A task that starts the next one in its own phase, for ever: the phase comes to its end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_of_a_phase_that_never_rests() {
    fn again(phase: Phase, alive: Arc<AtomicUsize>) {
        let (next, guard) = (phase.clone(), Alive::begin(&alive));
        let _ = phase.spawn("again", async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            again(next, alive);
        });
    }
    for _ in 0..200 {
        let alive = Arc::new(AtomicUsize::new(0));
        let mut shutdown = Shutdown::default();
        for name in ["a", "b", "c"] {
            again(shutdown.phase(name, Duration::from_secs(60)), alive.clone());
        }
        let report = tokio::spawn(shutdown.run(stream::iter([1]).chain(stream::pending()))).await.unwrap();
        assert_eq!((report.left.len(), alive.load(Ordering::Relaxed)), (0, 0));
    }
}

/// A destructor that panics while its task is aborted is in the report.
#[tokio::test(start_paused = true)]
async fn panics_on_the_way_out_are_not_lost() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("on the way out"));
        }
    }
    let mut shutdown = Shutdown::default();
    let phase = shutdown.phase("workers", MS);
    let stubborn = async {
        let _guard = PanicsWhenDropped;
        std::future::pending().await
    };
    phase.spawn("stubborn", stubborn).unwrap();
    let report = shutdown.run(stream::iter([()])).await;
    assert!(report.left[0].1.cause.is_panic());
}

/// Tasks hold their own phase, and yet dropping the shutdown ends them.
#[tokio::test(start_paused = true)]
async fn cancellation_by_drop_of_the_shutdown() {
    let held = Arc::new(());
    let mut shutdown = Shutdown::default();
    let phase = shutdown.phase("workers", Duration::MAX);
    for _ in 0..10 {
        let guard = (held.clone(), phase.clone());
        let forever = async move {
            let _guard = guard;
            std::future::pending().await
        };
        phase.spawn("forever", forever).unwrap();
    }
    drop(shutdown);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(phase.spawn("late", async {}).is_err());
}
