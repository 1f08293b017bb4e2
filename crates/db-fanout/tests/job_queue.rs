//! Proofs that need a server of their own, several workers, or processes that are killed.
//!
//! The sweep runs on a paused clock, which would jump while a packet is on its way: a blocking task beside the socket keeps it
//! from that. `work` waits for time and for packets; it is dropped at each of its polls on the real clock.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn, ready};
use std::io::{BufRead, BufReader, Write};
use std::num::{NonZeroU16, NonZeroUsize};
use std::panic::resume_unwind;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use db_fanout::job_queue::{Claim, Job, JobQueue, SCHEMA, pool_options};
use proptest::prelude::*;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, query, query_as, query_scalar, raw_sql};
use support::services::Service;
use support::sweep::{Ended, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{spawn_blocking, yield_now};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const THREE: NonZeroUsize = ONE.saturating_add(2);
const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const OFTEN: NonZeroU16 = NonZeroU16::MAX;

/// How to connect to the server, with a new schema first in the path; `None` when the test is skipped.
fn schema(name: &str) -> Option<PgConnectOptions> {
    let url = Service::Postgres.of_tests()?.url();
    let options: PgConnectOptions = url.parse().expect("it is the URL of a server that answers");
    let options = options.options([("search_path", name)]).application_name(name);
    let anew = format!(
        "DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}; {SCHEMA}; CREATE TABLE effect (job bigint)"
    );
    let own = options.clone();
    apart(async move {
        let mut connection = own.connect().await.unwrap();
        raw_sql(AssertSqlSafe(anew)).execute(&mut connection).await.unwrap();
    });
    Some(options)
}

/// Runs it on a thread with a runtime and a clock of its own.
fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    thread::spawn(run).join().unwrap()
}

/// A queue that looks every 5 ms, in a schema of its own.
async fn queue(name: &str) -> Option<JobQueue> {
    let options = schema(name)?;
    let pool = pool_options().max_connections(20).connect_with(options).await.unwrap();
    Some(JobQueue {
        lease: MINUTE,
        poll: 5 * MS,
        backoff: Duration::ZERO,
        attempts: OFTEN,
        ..JobQueue::new(pool, name)
    })
}

async fn enqueue(queue: &JobQueue, payload: &str) -> i64 {
    queue.enqueue(&mut queue.pool.acquire().await.unwrap(), payload).await.unwrap()
}

async fn left(queue: &JobQueue) -> i64 {
    let left = query_scalar("SELECT count(*) FROM job WHERE queue = $1").bind(&queue.name);
    left.fetch_one(&queue.pool).await.unwrap()
}

async fn dead(queue: &JobQueue) -> i64 {
    let dead =
        query_scalar("SELECT count(*) FROM job WHERE queue = $1 AND attempts_left = 0 AND due <= now()");
    dead.bind(&queue.name).fetch_one(&queue.pool).await.unwrap()
}

/// Ready when the queue is empty.
async fn empty(queue: &JobQueue) {
    while left(queue).await > 0 {
        yield_now().await;
    }
}

/// Writes that the job was worked, in the transaction in which the job is finished: exactly once.
async fn effect(queue: &JobQueue, job: &Job) -> sqlx::Result<()> {
    let mut transaction = queue.pool.begin().await?;
    query("INSERT INTO effect (job) VALUES ($1)").bind(job.claim.id).execute(&mut *transaction).await?;
    if queue.finish(&mut transaction, &[job.claim]).await? == 1 {
        return transaction.commit().await;
    }
    transaction.rollback().await
}

/// Each job that is no longer in the queue has had its effect once, and no other has.
async fn assert_exactly_once(pool: &PgPool, ids: &[i64]) {
    let mut effects: Vec<i64> = query_scalar("SELECT job FROM effect").fetch_all(pool).await.unwrap();
    effects.sort();
    let mut ids = ids.to_vec();
    ids.sort();
    assert_eq!(effects, ids);
}

/// Polls it so often, and drops it if it has not ended by then.
async fn polls<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == times {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polled == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Keeps a paused clock from jumping while packets are on their way: it stands still while blocking work runs.
async fn on_the_wire<T>(exchange: impl Future<Output = T>) -> T {
    let (_ends, end) = mpsc::channel::<Infallible>();
    #[allow(clippy::disallowed_methods, reason = "it is meant to block")]
    spawn_blocking(move || end.recv().is_err());
    exchange.await
}

/// A queue whose pool has neither connections nor tasks.
fn unconnected(options: &PgConnectOptions, name: &str) -> JobQueue {
    let pool = PgPoolOptions::new().max_lifetime(None).idle_timeout(None).connect_lazy_with(options.clone());
    JobQueue::new(pool, name)
}

#[test]
fn cancellation_of_enqueue_leaves_a_whole_job_or_none() {
    let Some(options) = schema("sweep_enqueue") else { return };
    let run = AtomicU32::new(0);
    sweep(|_| {
        let name = run.fetch_add(1, SeqCst).to_string();
        let (options, queue) = (options.clone(), unconnected(&options, &name));
        let connect = options.clone();
        Scene::new(on_the_wire(async move {
            let mut connection = connect.connect().await.unwrap();
            queue.enqueue(&mut connection, "payload").await.unwrap()
        }))
        .check(move |ended| {
            let jobs: Vec<(i64, String, i32, i32)> = apart(async move {
                let jobs = query_as("SELECT id, payload, attempt, attempts_left FROM job WHERE queue = $1");
                jobs.bind(name).fetch_all(&mut options.connect().await.unwrap()).await.unwrap()
            });
            for job in &jobs {
                assert_eq!((job.1.as_str(), job.2, job.3), ("payload", 0, 5));
            }
            match ended {
                Ended::Returned(id) => assert_eq!(jobs.iter().map(|job| job.0).collect::<Vec<_>>(), [id]),
                _ => assert!(jobs.len() <= 1),
            }
        })
    });
}

#[test]
fn cancellation_of_finish_finishes_or_leaves_the_job() {
    let Some(options) = schema("sweep_finish") else { return };
    sweep(|_| {
        let (before, after, connect) = (options.clone(), options.clone(), options.clone());
        let id: i64 = apart(async move {
            let insert = "INSERT INTO job (queue, payload, attempt, attempts_left) VALUES ('a', '', 1, 1) RETURNING id";
            query_scalar(insert).fetch_one(&mut before.connect().await.unwrap()).await.unwrap()
        });
        let queue = unconnected(&options, "a");
        Scene::new(on_the_wire(async move {
            let mut connection = connect.connect().await.unwrap();
            let claims = [Claim { id, attempt: 1 }, Claim { id, attempt: 2 }, Claim { id: -1, attempt: 1 }];
            queue.finish(&mut connection, &claims).await.unwrap()
        }))
        .check(move |ended| {
            let there: i64 = apart(async move {
                let there = query_scalar("SELECT count(*) FROM job WHERE id = $1 AND attempt = 1").bind(id);
                there.fetch_one(&mut after.connect().await.unwrap()).await.unwrap()
            });
            match ended {
                Ended::Returned(finished) => assert_eq!((finished, there), (1, 0)),
                _ => assert!(there <= 1),
            }
        })
    });
}

/// `work` on the real clock, dropped after its first, second, third … poll, while its jobs finish themselves or are finished.
#[tokio::test]
async fn cancellation_of_work_at_every_poll_loses_and_doubles_nothing() {
    let Some(queue) = queue("every_poll").await else { return };
    let queue = JobQueue { lease: 30 * MS, ..queue };
    let mut all = Vec::new();
    let mut points = 0;
    loop {
        let queue = JobQueue { name: points.to_string(), ..queue.clone() };
        for _ in 0..3 {
            all.push(enqueue(&queue, "job").await);
        }
        let own = queue.clone();
        let work = move |job: Job| {
            let queue = own.clone();
            async move { effect(&queue, &job).await }
        };
        let ended = polls(queue.work(THREE, empty(&queue), work.clone()), points).await;
        // What was begun and given up is done when its lease is over.
        queue.work(THREE, empty(&queue), work).await.unwrap();
        assert_exactly_once(&queue.pool, &all).await;
        if let Some(ended) = ended {
            ended.unwrap();
            break;
        }
        points += 1;
    }
    println!("{points} points");
    // As many as there are answers to wait for, and more where they come in pieces.
    assert!(points > 4);
}

#[tokio::test]
async fn order_is_that_of_the_queue_and_the_other_queue_waits() {
    let Some(queue) = queue("other_queue").await else { return };
    let other = JobQueue { name: "other".into(), ..queue.clone() };
    enqueue(&other, "other").await;
    enqueue(&queue, "own").await;
    let (log, mut seen) = unbounded_channel();
    let work = move |job: Job| ready(log.send(job.payload));
    queue.work(THREE, empty(&queue), work).await.unwrap();
    assert_eq!((seen.recv().await.unwrap().as_str(), seen.recv().await), ("own", None));
    assert_eq!(left(&other).await, 1);
}

#[tokio::test]
async fn errors_in_the_callers_transaction_leave_no_job() {
    let Some(queue) = queue("rollback").await else { return };
    let mut transaction = queue.pool.begin().await.unwrap();
    queue.enqueue(&mut transaction, "job").await.unwrap();
    // Not there for others yet.
    assert_eq!(left(&queue).await, 0);
    transaction.rollback().await.unwrap();
    let mut transaction = queue.pool.begin().await.unwrap();
    queue.enqueue(&mut transaction, "job").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(left(&queue).await, 1);
}

#[tokio::test]
async fn errors_of_the_database_end_it_and_the_next_call_goes_on() {
    let Some(queue) = queue("terminated").await else { return };
    for _ in 0..20 {
        enqueue(&queue, "job").await;
    }
    let queue = JobQueue { lease: 30 * MS, ..queue };
    let killer = queue.clone();
    let kill = async move || {
        let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'terminated' AND pid <> pg_backend_pid()";
        // Its own connection may be among those that somebody else terminates.
        let _ = query(all).execute(&killer.pool).await;
    };
    let (own, kills) = (queue.clone(), Arc::new(AtomicUsize::new(0)));
    let work = move |job: Job| {
        let (queue, kill, number) = (own.clone(), kill.clone(), kills.fetch_add(1, SeqCst));
        async move {
            if number % 4 == 0 && number < 16 {
                kill().await;
            }
            effect(&queue, &job).await
        }
    };
    // The error of the count is the same error: the next call counts again.
    let empty = async || {
        let left = async || query_scalar("SELECT count(*) FROM job").fetch_one(&queue.pool).await;
        while left().await.unwrap_or(1_i64) > 0 {
            yield_now().await;
        }
    };
    while let Err(error) = queue.work(THREE, empty(), work.clone()).await {
        println!("{error}");
    }
    let effects: Vec<i64> =
        query_scalar("SELECT job FROM effect ORDER BY job").fetch_all(&queue.pool).await.unwrap();
    assert_eq!(effects, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn panics_take_no_other_job_along() {
    let Some(queue) = queue("panics").await else { return };
    let queue = JobQueue { attempts: NonZeroU16::MIN, ..queue };
    let id = enqueue(&queue, "runs").await;
    enqueue(&queue, "panics at once").await;
    enqueue(&queue, "panics later").await;
    let own = queue.clone();
    let work = move |job: Job| {
        if job.payload == "panics at once" {
            // Not `panic!`: the message would be printed though the panic is expected.
            resume_unwind(Box::new("broken"));
        }
        let queue = own.clone();
        async move {
            if job.payload == "panics later" {
                resume_unwind(Box::new("broken"));
            }
            // Ends when the others are dead.
            while dead(&queue).await < 2 {
                yield_now().await;
            }
            effect(&queue, &job).await
        }
    };
    let stop = async {
        while left(&queue).await > 2 {
            yield_now().await;
        }
    };
    queue.work(THREE, stop, work).await.unwrap();
    assert_exactly_once(&queue.pool, &[id]).await;
}

/// Waits for jobs that only end when they are let.
fn gated(
    queue: &JobQueue,
) -> (impl Fn(Job) -> Gated + Send + Sync + Clone + use<>, UnboundedReceiver<Claim>, Arc<Semaphore>) {
    let (begun, begins) = unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let (own, own_gate) = (queue.clone(), gate.clone());
    let work = move |job: Job| -> Gated {
        begun.send(job.claim).unwrap();
        let (queue, gate) = (own.clone(), own_gate.clone());
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            effect(&queue, &job).await
        })
    };
    (work, begins, gate)
}

type Gated = std::pin::Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send>>;

#[tokio::test]
async fn memory_holds_as_many_jobs_as_there_are_places() {
    let Some(queue) = queue("places").await else { return };
    let many = "INSERT INTO job (queue, payload, attempts_left) SELECT $1, '', 1 FROM generate_series(1, 1100) RETURNING id";
    let ids: Vec<i64> = query_scalar(many).bind(&queue.name).fetch_all(&queue.pool).await.unwrap();
    let begun = async || {
        let begun = query_scalar::<_, i64>("SELECT count(*) FROM job WHERE attempt > 0");
        begun.fetch_one(&queue.pool).await.unwrap()
    };
    let (work, mut begins, gate) = gated(&queue);
    let stop = async {
        for _ in 0..3 {
            begins.recv().await.unwrap();
        }
        assert_eq!(begun().await, 3);
        // The places of two that have ended are taken, and no more.
        gate.add_permits(2);
        for _ in 0..2 {
            begins.recv().await.unwrap();
        }
        assert_eq!(begun().await, 3);
        gate.add_permits(3);
    };
    queue.work(THREE, stop, work).await.unwrap();

    let (work, mut begins, gate) = gated(&queue);
    let stop = async {
        for _ in 0..1095 {
            begins.recv().await.unwrap();
        }
        gate.add_permits(1095);
        empty(&queue).await;
    };
    queue.work(NonZeroUsize::MAX, stop, work).await.unwrap();
    assert_exactly_once(&queue.pool, &ids).await;
}

#[tokio::test]
async fn backpressure_lets_what_runs_end_and_takes_no_more_when_it_is_stopped() {
    let Some(queue) = queue("stopped").await else { return };
    let first = enqueue(&queue, "runs").await;
    let (work, mut begins, gate) = gated(&queue);
    let (stop, stopped) = oneshot::channel::<()>();
    let own = queue.clone();
    let task = tokio::spawn(async move { own.work(ONE, async { drop(stopped.await) }, work).await });
    begins.recv().await.unwrap();
    drop(stop);
    enqueue(&queue, "waits").await;
    gate.add_permits(2);
    task.await.unwrap().unwrap();
    assert_eq!(left(&queue).await, 1);
    assert_exactly_once(&queue.pool, &[first]).await;
}

#[tokio::test]
async fn clock_extends_the_lease_as_long_as_a_job_runs() {
    let Some(queue) = queue("heartbeat").await else { return };
    let queue = JobQueue { lease: 200 * MS, ..queue };
    let id = enqueue(&queue, "job").await;
    let own = queue.clone();
    let (begun, mut begins) = unbounded_channel();
    // Until its lease was extended ten times: more than three leases.
    let work = move |job: Job| {
        begun.send(job.claim.attempt).unwrap();
        let queue = own.clone();
        async move {
            let mut seen = BTreeSet::new();
            while seen.len() < 10 {
                let due =
                    query_scalar("SELECT extract(epoch FROM due)::float8 FROM job").fetch_one(&queue.pool);
                let due: f64 = due.await?;
                seen.insert(due.to_bits());
                yield_now().await;
            }
            effect(&queue, &job).await
        }
    };
    let rival = async {
        assert_eq!(begins.recv().await, Some(1));
        let none =
            |job: Job| -> std::future::Ready<Result<(), String>> { panic!("{job:?} was not given up") };
        queue.work(ONE, empty(&queue), none).await
    };
    let (first, rival) = tokio::join!(queue.work(ONE, empty(&queue), work), rival);
    first.unwrap();
    rival.unwrap();
    assert!(begins.is_empty());
    assert_exactly_once(&queue.pool, &[id]).await;
}

/// A worker whose thread stands still, as by SIGSTOP: others do its jobs, and when it goes on it is told so.
#[tokio::test]
async fn clock_of_a_worker_that_stands_still_costs_it_its_jobs() {
    let Some(queue) = queue("stalled").await else { return };
    let wait_id = enqueue(&queue, "wait").await;
    let block_id = enqueue(&queue, "block").await;
    let (go_on, wait) = mpsc::channel::<Infallible>();
    let (begun, mut begins) = unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let options = (*queue.pool.connect_options()).clone();
    let stalled = thread::spawn(move || {
        let wait = Arc::new(Mutex::new(wait));
        let worker = async move {
            let pool = pool_options().connect_with(options).await.unwrap();
            let queue = JobQueue { lease: 100 * MS, ..JobQueue::new(pool, "stalled") };
            let own = queue.clone();
            let work = move |job: Job| {
                let (queue, wait, begun) = (own.clone(), wait.clone(), begun.clone());
                async move {
                    begun.send(job.claim.id).unwrap();
                    if job.payload == "wait" {
                        pending::<()>().await;
                    }
                    #[allow(clippy::disallowed_methods, reason = "it is meant to block the thread")]
                    let gone_on = wait.lock().unwrap().recv();
                    assert!(gone_on.is_err());
                    effect(&queue, &job).await
                }
            };
            queue.work(THREE, async { drop(stopped.await) }, work).await
        };
        Builder::new_current_thread().enable_all().build().unwrap().block_on(worker)
    });
    while begins.recv().await.unwrap() != block_id {}
    let own = queue.clone();
    let work = move |job: Job| {
        assert_eq!(job.claim.attempt, 2);
        let queue = own.clone();
        async move { effect(&queue, &job).await }
    };
    queue.work(THREE, empty(&queue), work).await.unwrap();
    drop((go_on, stop));
    // It returns although one of its jobs waits for ever: that was aborted.
    spawn_blocking(|| stalled.join()).await.unwrap().unwrap().unwrap();
    assert_exactly_once(&queue.pool, &[wait_id, block_id]).await;
}

#[tokio::test]
async fn clock_that_looks_once_a_day_is_woken() {
    let Some(queue) = queue("woken").await else { return };
    let queue = JobQueue { poll: Duration::MAX, ..queue };
    let (begun, mut begins) = unbounded_channel();
    let work = move |job: Job| ready(begun.send(job.claim.id));
    let stop = async {
        // The first one may be found by the first look; the others come when it is over.
        for _ in 0..20 {
            let id = enqueue(&queue, "job").await;
            assert_eq!(begins.recv().await, Some(id));
            empty(&queue).await;
        }
    };
    queue.work(ONE, stop, work).await.unwrap();
}

#[tokio::test]
async fn clock_of_any_length_is_accepted() {
    let Some(queue) = queue("extremes").await else { return };
    for (lease, poll, backoff) in [
        (Duration::MAX, Duration::ZERO, Duration::MAX),
        (Duration::ZERO, Duration::MAX, Duration::ZERO),
        (Duration::from_nanos(1), Duration::from_nanos(1), Duration::from_nanos(1)),
    ] {
        let queue = JobQueue { lease, poll, backoff, ..queue.clone() };
        let own = queue.clone();
        let work = move |job: Job| {
            let queue = own.clone();
            async move {
                if job.payload == "fails" {
                    Err(sqlx::Error::RowNotFound)
                } else {
                    effect(&queue, &job).await
                }
            }
        };
        // The second attempt may be a day off.
        enqueue(&JobQueue { attempts: NonZeroU16::MIN, ..queue.clone() }, "fails").await;
        enqueue(&queue, "job").await;
        let stop = async {
            while left(&queue).await > dead(&queue).await || dead(&queue).await == 0 {
                yield_now().await;
            }
        };
        queue.work(NonZeroUsize::MAX, stop, work).await.unwrap();
        query("DELETE FROM job").execute(&queue.pool).await.unwrap();
    }
}

/// An aborted transaction's connection is closed, any other is kept.
#[tokio::test]
async fn cancellation_of_a_transaction_leaves_none_open_in_the_pool() {
    let Some(options) = schema("open") else { return };
    let pool = pool_options().max_connections(1).connect_with(options).await.unwrap();
    let process = async || query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&pool).await.unwrap();
    let first = process().await;
    for _ in 0..50 {
        assert_eq!(process().await, first);
    }
    for points in 0..20 {
        let begun = polls(async { pool.begin().await.unwrap().commit().await }, points).await;
        let row = raw_sql("SELECT now() = statement_timestamp()").fetch_one(&pool).await.unwrap();
        assert!(row.get::<bool, _>(0), "{points}: a transaction is open");
        if begun.is_some() {
            return;
        }
    }
    panic!("a transaction of two statements takes more than 20 polls");
}

/// What a job does at each of its attempts.
#[derive(Clone, Copy, Debug)]
enum Does {
    Ends,
    Fails,
    Panics,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each job is begun until it ends, and at most as often as it may be; then it is gone or dead.
    #[test]
    fn errors_use_up_the_attempts_of_their_own_job(
        jobs in prop::collection::vec(prop::collection::vec(prop_oneof![Just(Does::Ends), Just(Does::Fails), Just(Does::Panics)], 5), 1..6),
        attempts in 1..=5_u16,
        places in 1..4_usize,
    ) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let tried = runtime.block_on(async {
            let Some(queue) = queue("attempts").await else { return Ok(()) };
            let queue = JobQueue { attempts: NonZeroU16::new(attempts).unwrap(), poll: MS, ..queue };
            for number in 0..jobs.len() {
                enqueue(&queue, &number.to_string()).await;
            }
            let begun: Arc<Vec<AtomicUsize>> = Arc::new(jobs.iter().map(|_| AtomicUsize::new(0)).collect());
            let (seen, does) = (begun.clone(), jobs.clone());
            let work = move |job: Job| {
                let number: usize = job.payload.parse().unwrap();
                let before = seen[number].fetch_add(1, SeqCst);
                assert_eq!(before + 1, job.claim.attempt as usize);
                let does = does[number][before];
                async move {
                    match does {
                        Does::Ends => Ok(()),
                        Does::Fails => Err("refused"),
                        Does::Panics => resume_unwind(Box::new("broken")),
                    }
                }
            };
            let stop = async {
                while left(&queue).await > dead(&queue).await {
                    yield_now().await;
                }
            };
            queue.work(NonZeroUsize::new(places).unwrap(), stop, work).await.unwrap();
            let mut dies = 0;
            for (does, begun) in jobs.iter().zip(begun.iter()) {
                let ends = does.iter().position(|does| matches!(does, Does::Ends)).map_or(usize::MAX, |at| at + 1);
                prop_assert_eq!(begun.load(SeqCst), ends.min(attempts.into()));
                dies += i64::from(ends > attempts.into());
            }
            prop_assert_eq!((left(&queue).await, dead(&queue).await), (dies, dies));
            Ok(())
        });
        tried?;
    }
}

/// Several workers on two threads, of which one after the other is dropped, and jobs that fail and panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_panics_and_drops_of_many_workers_leave_each_effect_once() {
    let Some(queue) = queue("stress").await else { return };
    let queue = JobQueue { lease: 100 * MS, ..queue };
    let mut ids = Vec::new();
    let mut transaction = queue.pool.begin().await.unwrap();
    for _ in 0..300 {
        ids.push(queue.enqueue(&mut transaction, "job").await.unwrap());
    }
    transaction.commit().await.unwrap();
    let own = queue.clone();
    let work = move |job: Job| {
        let queue = own.clone();
        async move {
            match (job.claim.id + 3 * i64::from(job.claim.attempt)) % 7 {
                0 => Err(sqlx::Error::RowNotFound),
                1 => resume_unwind(Box::new("broken")),
                _ => effect(&queue, &job).await,
            }
        }
    };
    let dropped = |number: usize| {
        let (queue, work) = (queue.clone(), work.clone());
        async move {
            let mut points = number;
            while left(&queue).await > 0 {
                let _ = polls(queue.work(THREE, pending(), work.clone()), points).await;
                points += 3;
            }
        }
    };
    let tasks = [tokio::spawn(dropped(5)), tokio::spawn(dropped(6)), tokio::spawn(dropped(7))];
    queue.work(THREE, empty(&queue), work.clone()).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_exactly_once(&queue.pool, &ids).await;
}

/// One worker is killed and one is stopped by signals, each with a job in work.
#[tokio::test]
async fn cancellation_by_sigkill_and_sigstop_loses_and_doubles_nothing() {
    if let Ok(url) = std::env::var("JOB_QUEUE_WORKER") {
        return worker_process(&url).await;
    }
    let Some(queue) = queue("processes").await else { return };
    let server = Service::Postgres.of_tests().expect("it was there a moment ago").url();
    let mut ids = vec![enqueue(&queue, "hangs").await, enqueue(&queue, "hangs").await];
    let mut killed = Worker::start(server);
    assert_eq!(killed.begins(), format!("{} 1", ids[0]));
    let mut stopped = Worker::start(server);
    assert_eq!(stopped.begins(), format!("{} 1", ids[1]));
    killed.process.kill().unwrap();
    killed.process.wait().unwrap();
    stopped.signal("STOP");
    for _ in 0..20 {
        ids.push(enqueue(&queue, "job").await);
    }
    let own = queue.clone();
    let work = move |job: Job| {
        let queue = own.clone();
        async move { effect(&queue, &job).await }
    };
    queue.work(THREE, empty(&queue), work).await.unwrap();
    // It goes on with a job that is no longer its own, is aborted, and takes the next one.
    stopped.signal("CONT");
    let last = enqueue(&queue, "job").await;
    assert_eq!(stopped.begins(), format!("{last} 1"));
    empty(&queue).await;
    assert_exactly_once(&queue.pool, &[ids, vec![last]].concat()).await;
}

async fn worker_process(url: &str) {
    let options: PgConnectOptions = url.parse().unwrap();
    let pool = pool_options().connect_with(options.options([("search_path", "processes")])).await.unwrap();
    let queue = JobQueue { lease: 200 * MS, ..JobQueue::new(pool, "processes") };
    let own = queue.clone();
    let work = move |job: Job| {
        let queue = own.clone();
        async move {
            // Not `println!`, which libtest keeps back.
            let line = format!("\nbegins {} {}\n", job.claim.id, job.claim.attempt);
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            if job.payload == "hangs" {
                pending::<()>().await;
            }
            effect(&queue, &job).await
        }
    };
    queue.work(ONE, pending(), work).await.unwrap();
}

struct Worker {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    fn start(url: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "cancellation_by_sigkill_and_sigstop_loses_and_doubles_nothing"]);
        let mut process = command.env("JOB_QUEUE_WORKER", url).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Worker { process, lines }
    }

    /// The next job that it begins, and the attempt.
    fn begins(&mut self) -> String {
        self.lines.find_map(|line| line.unwrap().strip_prefix("begins ").map(String::from)).unwrap()
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.arg("-s").arg(signal).arg(self.process.id().to_string());
        assert!(kill.spawn().unwrap().wait().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
