//! Keep jobs in PostgreSQL: enqueued in the caller's transaction, worked by any process, none lost.
//!
//! Use it where a job must be there exactly if the transaction that asked for it was committed, and must outlive every process.
//! Where jobs may die with the process, `worker_pool` is enough.
//!
//! | | |
//! |---|---|
//! | Order | the longest due first; jobs run side by side, so they end in any order |
//! | Errors | a job that fails waits `backoff`, then twice as long, at most a day, and is dead after `attempts`; an error of the database ends [`JobQueue::work`] |
//! | Cancellation | dropping `work` aborts its jobs, each in its task's next turn; they are taken again when their lease ends, which is another attempt |
//! | Panics | a panic of a job is its failure, and the row keeps its message |
//! | Memory | O(`at_once`) jobs in a worker; the rest lies in the table |
//! | Backpressure | a worker takes no more jobs than it has places; enqueueing never waits for workers |
//! | Clock | leases and waits by the server's clock; when to look and when to extend a lease by `tokio::time` |
//!
//! A job is worked *at least* once: it is taken with a lease, which its worker extends every third of it. When a worker is killed or
//! stands still, the lease ends and another worker takes the job, with the next attempt's number. Whoever comes back with an old
//! number can no longer finish the job. What a job writes in the transaction in which it calls [`JobQueue::finish`] is written
//! *exactly* once. A worker is woken by NOTIFY; what that misses it finds by looking every `poll`.
//!
//! ```
//! use db_fanout::job_queue::{Job, JobQueue, SCHEMA, pool_options};
//!
//! #[tokio::main]
//! async fn main() -> sqlx::Result<()> {
//!     let Ok(url) = std::env::var("DATABASE_URL") else { return Ok(()) };
//!     let queue = JobQueue::new(pool_options().connect(&url).await?, "mail");
//!     sqlx::raw_sql(SCHEMA).execute(&queue.pool).await?;
//!     queue.enqueue(&mut *queue.pool.acquire().await?, "ada").await?;
//!     let (sent, mut done) = tokio::sync::mpsc::unbounded_channel();
//!     let send = move |job: Job| std::future::ready(sent.send(job.payload));
//!     queue.work(std::num::NonZeroUsize::MIN, async { assert_eq!(done.recv().await.unwrap(), "ada") }, send).await
//! }
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::future::Future;
use std::iter;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgListener, PgPool, PgPoolOptions};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// The table, for your migrations. A job with no attempts left whose lease has ended is dead: it stays, with its last error, until
/// you delete it or give it new `attempts_left`. Never set `attempt`.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    payload text NOT NULL,
    due timestamptz NOT NULL DEFAULT now(), -- the end of the lease, while somebody works on it
    attempt integer NOT NULL DEFAULT 0,
    attempts_left integer NOT NULL,
    error text
);
CREATE INDEX IF NOT EXISTS job_due ON job (queue, due, id) WHERE attempts_left > 0;";

const LEAST: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What comes within this time after a look is found by one more look.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// The most jobs in one statement.
const MOST: usize = 1000;

/// One attempt at one job: the right to finish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job's.
    pub id: i64,
    /// Counts from 1. Whoever takes the job next has the next number.
    pub attempt: i32,
}

/// A job to be worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// For [`JobQueue::finish`].
    pub claim: Claim,
    /// What was enqueued.
    pub payload: String,
}

/// A queue in the table of [`SCHEMA`]. Queues of the same name are one queue, in other processes too.
#[derive(Clone, Debug)]
pub struct JobQueue {
    /// See [`pool_options`]. A worker keeps one connection for itself and needs another one now and then: if its jobs take all, leases
    /// end.
    pub pool: PgPool,
    /// Shorter than 8000 bytes.
    pub name: String,
    /// How long a worker may be silent before others take its jobs: a millisecond to a day.
    pub lease: Duration,
    /// How often a worker looks for jobs unasked, those that failed and those of dead workers: a millisecond to a day.
    pub poll: Duration,
    /// How often a job is taken until it is dead, by workers that die too.
    pub attempts: NonZeroU16,
    /// How long a job waits after its first failure: at most a day.
    pub backoff: Duration,
}

/// Options of a pool for jobs with transactions. A job may be aborted while it begins one, or before it could roll back, and sqlx
/// 0.9.0 then hands the connection to others with the transaction open. Here that connection is closed when it comes back; to find
/// it costs a query in the background.
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new().after_release(|connection, _| {
        // They differ in a transaction that was begun by an earlier statement.
        let none = sqlx::raw_sql("SELECT now() = statement_timestamp()").fetch_one(connection);
        Box::pin(async { none.await?.try_get(0) })
    })
}

impl JobQueue {
    /// A queue with a lease of 30 seconds, a look each second, and 5 attempts, the second a second after the first.
    pub fn new(pool: PgPool, name: impl Into<String>) -> Self {
        let (lease, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let attempts = NonZeroU16::MIN.saturating_add(4);
        JobQueue { pool, name: name.into(), lease, poll: second, attempts, backoff: second }
    }

    /// Puts a job into the queue and returns its id. It is there, and a worker is woken, when the transaction of `connection` is
    /// committed, and never if that is rolled back.
    pub async fn enqueue(&self, connection: &mut PgConnection, payload: &str) -> sqlx::Result<i64> {
        let statement = sqlx::query_scalar(
            "WITH new AS (INSERT INTO job (queue, payload, attempts_left) VALUES ($1, $2, $3) RETURNING id)
             SELECT id, pg_notify('job', $1) FROM new",
        );
        let attempts = i32::from(self.attempts.get());
        statement.bind(&self.name).bind(payload).bind(attempts).fetch_one(connection).await
    }

    /// Takes the jobs whose claim still holds out of the queue, and returns how many. A job that writes to this database calls it
    /// last in the transaction in which it writes, and rolls back if it gets 0: then the job is somebody else's. An error that it returns
    /// after that is not kept.
    pub async fn finish(&self, connection: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<u64> {
        let statement = sqlx::query(
            "DELETE FROM job USING unnest($1::bigint[], $2::integer[]) AS mine (id, attempt)
             WHERE job.id = mine.id AND job.attempt = mine.attempt",
        );
        let (ids, attempts) = columns(claims);
        Ok(statement.bind(ids).bind(attempts).execute(connection).await?.rows_affected())
    }

    /// Works jobs, `at_once` side by side and each in a task of its own, until `stop` is ready. Then it takes no more, and returns
    /// when those that run have ended. A job that returns `Ok` is finished, if it did not do that itself. A job that is found to be
    /// somebody else's is aborted. While the worker waits for the database, `stop` is not polled: it should hold no connection of the pool.
    ///
    /// # Errors
    ///
    /// The database's. The jobs are aborted, as when it is dropped; call it again after a while.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn work<F, E>(
        &self,
        at_once: NonZeroUsize,
        stop: impl Future<Output = ()>,
        work: impl Fn(Job) -> F + Send + Sync + 'static,
    ) -> sqlx::Result<()>
    where
        F: Future<Output = Result<(), E>> + Send,
        E: Display,
    {
        let work = Arc::new(work);
        let (mut running, mut held) = (JoinSet::new(), HashMap::<Id, (Claim, AbortHandle)>::new());
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("job").await?;
        let mut beat = interval((self.lease.min(DAY) / 3).max(LEAST));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stopped, mut looked, mut look) = (false, Instant::now(), Instant::now());
        tokio::pin!(stop);
        while !stopped || !held.is_empty() {
            let free = at_once.get() - held.len();
            tokio::select! {
                biased;
                _ = beat.tick(), if !held.is_empty() => {
                    let claims: Vec<_> = held.values().map(|(claim, _)| *claim).collect();
                    let lost: HashSet<i64> = self.extend(&claims).await?.into_iter().collect();
                    held.values().filter(|(claim, _)| lost.contains(&claim.id)).for_each(|(_, task)| task.abort());
                }
                () = &mut stop, if !stopped => stopped = true,
                Some(first) = running.join_next_with_id() => {
                    let others = iter::from_fn(|| running.try_join_next_with_id());
                    let (mut done, mut failed, mut errors) = (Vec::new(), Vec::new(), Vec::new());
                    for ended in iter::once(first).chain(others) {
                        let (id, result) = match ended {
                            Ok((id, result)) => (id, result),
                            Err(error) => (error.id(), Err(error.to_string())),
                        };
                        let claim = held.remove(&id).map(|(claim, _)| claim);
                        match result {
                            Ok(()) => done.extend(claim),
                            // PostgreSQL's text has no zero byte.
                            Err(error) => {
                                failed.extend(claim);
                                errors.push(error.replace('\0', ""));
                            }
                        }
                    }
                    if !failed.is_empty() {
                        self.fail(&failed, &errors).await?;
                    }
                    if !done.is_empty() {
                        self.finish(&mut *self.pool.acquire().await?, &done).await?;
                    }
                }
                () = sleep_until(look), if free > 0 && !stopped => {
                    let most = free.min(MOST);
                    let jobs = self.claim(most).await?;
                    looked = Instant::now();
                    look = if jobs.len() == most { looked } else { looked + self.poll.clamp(LEAST, DAY) };
                    for job in jobs {
                        let (claim, work) = (job.claim, work.clone());
                        let job = async move { work(job).await.map_err(|error| error.to_string()) };
                        let task = running.spawn(job);
                        held.insert(task.id(), (claim, task));
                    }
                }
                // Always listened to: what nobody reads piles up in the server.
                woken = listener.recv() => if woken?.payload() == self.name {
                    look = look.min(looked + DEBOUNCE);
                },
            }
        }
        Ok(())
    }

    async fn claim(&self, most: usize) -> sqlx::Result<Vec<Job>> {
        let statement = sqlx::query_as(
            "WITH next AS (
                 SELECT id, due FROM job WHERE queue = $1 AND attempts_left > 0 AND due <= now()
                 ORDER BY due, id LIMIT $2 FOR UPDATE SKIP LOCKED
             ), taken AS (
                 UPDATE job SET attempt = job.attempt + 1, attempts_left = job.attempts_left - 1,
                     due = now() + make_interval(secs => $3)
                 FROM next WHERE job.id = next.id RETURNING job.id, job.attempt, job.payload, next.due AS was_due
             ) SELECT id, attempt, payload FROM taken ORDER BY was_due, id",
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let statement =
            statement.bind(&self.name).bind(most).bind(self.lease.clamp(LEAST, DAY).as_secs_f64());
        let jobs: Vec<(i64, i32, String)> = statement.fetch_all(&self.pool).await?;
        let job = |(id, attempt, payload)| Job { claim: Claim { id, attempt }, payload };
        Ok(jobs.into_iter().map(job).collect())
    }

    /// Begins the leases anew, and returns the jobs that are no longer ours. One that is about to be finished is locked: it needs none.
    async fn extend(&self, claims: &[Claim]) -> sqlx::Result<Vec<i64>> {
        let statement = sqlx::query_scalar(
            "WITH mine AS (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS mine (id, attempt)),
             held AS (SELECT job.id FROM job JOIN mine USING (id, attempt) FOR UPDATE OF job SKIP LOCKED),
             extended AS (UPDATE job SET due = now() + make_interval(secs => $3) FROM held WHERE job.id = held.id)
             SELECT mine.id FROM mine LEFT JOIN job USING (id, attempt) WHERE job.id IS NULL",
        );
        let (ids, attempts) = columns(claims);
        let lease = self.lease.clamp(LEAST, DAY).as_secs_f64();
        statement.bind(ids).bind(attempts).bind(lease).fetch_all(&self.pool).await
    }

    async fn fail(&self, claims: &[Claim], errors: &[String]) -> sqlx::Result<()> {
        let statement = sqlx::query(
            "UPDATE job SET error = mine.error, due = now() + make_interval(secs => CASE job.attempts_left
                 WHEN 0 THEN 0 ELSE least($4 * 2 ^ least(job.attempt - 1, 30), 86400) END)
             FROM unnest($1::bigint[], $2::integer[], $3::text[]) AS mine (id, attempt, error)
             WHERE job.id = mine.id AND job.attempt = mine.attempt",
        );
        let (ids, attempts) = columns(claims);
        let backoff = self.backoff.min(DAY).as_secs_f64();
        statement.bind(ids).bind(attempts).bind(errors).bind(backoff).execute(&self.pool).await?;
        Ok(())
    }
}

fn columns(claims: &[Claim]) -> (Vec<i64>, Vec<i32>) {
    claims.iter().map(|claim| (claim.id, claim.attempt)).unzip()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use sqlx::AssertSqlSafe;
    use sqlx::postgres::PgConnectOptions;
    use tokio::sync::{mpsc, watch};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = ONE.saturating_add(1);

    /// A queue in a schema of its own in the database `DATABASE_URL`; `None` if that is not set.
    async fn queue(test: &str) -> Option<JobQueue> {
        let Ok(url) = std::env::var("DATABASE_URL") else {
            // Not `eprintln!`, which is swallowed when a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: DATABASE_URL is not set");
            return None;
        };
        let schema = format!("job_queue_{test}");
        let options: PgConnectOptions = url.parse().unwrap();
        let pool =
            PgPoolOptions::new().connect_with(options.options([("search_path", &schema)])).await.unwrap();
        let anew = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; {SCHEMA}");
        sqlx::raw_sql(AssertSqlSafe(anew)).execute(&pool).await.unwrap();
        let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
        let queue = JobQueue::new(pool, test);
        Some(JobQueue { lease: 60 * second, poll: 5 * millisecond, backoff: Duration::ZERO, ..queue })
    }

    async fn enqueue(queue: &JobQueue, payload: &str) -> i64 {
        queue.enqueue(&mut queue.pool.acquire().await.unwrap(), payload).await.unwrap()
    }

    /// Jobs in the table, and those of them that are dead.
    async fn count(queue: &JobQueue) -> (i64, i64) {
        let dead = "SELECT count(*), count(*) FILTER (WHERE attempts_left = 0 AND due <= now()) FROM job";
        sqlx::query_as(dead).fetch_one(&queue.pool).await.unwrap()
    }

    #[tokio::test]
    async fn order_is_that_of_enqueueing() {
        let Some(queue) = queue("order").await else { return };
        for payload in ["a", "b", "c"] {
            enqueue(&queue, payload).await;
        }
        let (log, mut seen) = mpsc::unbounded_channel();
        let work = move |job: Job| ready(log.send(job.payload));
        let stop = async {
            for wanted in ["a", "b", "c"] {
                assert_eq!(seen.recv().await.unwrap(), wanted)
            }
        };
        queue.work(ONE, stop, work).await.unwrap();
        assert_eq!(count(&queue).await, (0, 0));
    }

    #[tokio::test]
    async fn errors_and_panics_are_tried_again_until_the_job_is_dead() {
        let Some(mut queue) = queue("errors").await else { return };
        queue.attempts = NonZeroU16::new(3).unwrap();
        enqueue(&queue, "fails").await;
        enqueue(&queue, "panics").await;
        let (log, mut seen) = mpsc::unbounded_channel();
        let work = move |job: Job| {
            log.send(job.claim.attempt).unwrap();
            // Not `panic!`: the message would be printed though the panic is expected.
            if job.payload == "panics" {
                std::panic::resume_unwind(Box::new("broken"))
            }
            ready(Err("zero\0byte"))
        };
        let stop = async {
            for wanted in [1, 1, 2, 2, 3, 3] {
                assert_eq!(seen.recv().await.unwrap(), wanted)
            }
        };
        queue.work(TWO, stop, work).await.unwrap();
        assert_eq!(count(&queue).await, (2, 2));
        let errors = sqlx::query_scalar("SELECT error FROM job ORDER BY id").fetch_all(&queue.pool).await;
        let errors: Vec<String> = errors.unwrap();
        assert!(errors[0] == "zerobyte" && errors[1].contains("broken"), "{errors:?}");
    }

    #[tokio::test]
    async fn cancellation_aborts_the_jobs_and_they_are_taken_again() {
        let Some(mut queue) = queue("cancellation").await else { return };
        enqueue(&queue, "job").await;
        let (begun, mut seen) = mpsc::unbounded_channel();
        let work = move |_| {
            let (held, alive) = mpsc::channel::<()>(1);
            begun.send(held).unwrap();
            async move { (pending::<()>().await, drop(alive), Ok::<(), String>(())).2 }
        };
        queue.lease = Duration::from_millis(50);
        let first = tokio::select! {
            ended = queue.work(ONE, pending(), work) => panic!("{ended:?}"),
            first = seen.recv() => first.unwrap(),
        };
        // The task that held the other end is gone.
        first.closed().await;
        let (log, mut seen) = mpsc::unbounded_channel();
        let stop = async { assert_eq!(seen.recv().await, Some(2)) };
        queue.work(ONE, stop, move |job| ready(log.send(job.claim.attempt))).await.unwrap();
        assert_eq!(count(&queue).await, (0, 0));
    }

    #[tokio::test]
    async fn backpressure_leaves_in_the_table_what_has_no_place() {
        let Some(queue) = queue("backpressure").await else { return };
        for _ in 0..5 {
            enqueue(&queue, "job").await;
        }
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (ended, mut all) = watch::channel(0);
        let seen = most.clone();
        let work = move |_| {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            let (running, ended) = (running.clone(), ended.clone());
            async move {
                tokio::task::yield_now().await;
                running.fetch_sub(1, SeqCst);
                ended.send_modify(|ended| *ended += 1);
                Ok::<(), String>(())
            }
        };
        let stop = async { drop(all.wait_for(|ended| *ended == 5).await.unwrap()) };
        queue.work(TWO, stop, work).await.unwrap();
        assert_eq!((seen.load(SeqCst), count(&queue).await), (2, (0, 0)));
    }

    #[tokio::test]
    async fn clock_of_the_server_ends_a_lease_and_the_old_claim_finishes_nothing() {
        let Some(mut queue) = queue("clock").await else { return };
        queue.lease = Duration::ZERO;
        let id = enqueue(&queue, "job").await;
        let old = queue.claim(2).await.unwrap();
        assert_eq!(old[0].claim, Claim { id, attempt: 1 });
        let mut new = Vec::new();
        while new.is_empty() {
            new = queue.claim(2).await.unwrap();
        }
        let mut connection = queue.pool.acquire().await.unwrap();
        assert_eq!(queue.finish(&mut connection, &[old[0].claim]).await.unwrap(), 0);
        assert_eq!(queue.extend(&[old[0].claim]).await.unwrap(), [id]);
        assert_eq!(queue.extend(&[new[0].claim]).await.unwrap(), [0; 0]);
        assert_eq!(queue.finish(&mut connection, &[new[0].claim]).await.unwrap(), 1);
    }
}
