//! Jobs from a table of PostgreSQL. The server is the one in `DATABASE_URL`, or started here; it does not flush to the disk.

use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use benches::{Bench, Flavour, Measure, Table, stopwatch};
use db_fanout::job_queue::{Job, JobQueue, SCHEMA, pool_options};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{query, query_scalar, raw_sql};
use support::services::Service;
use tokio::sync::Notify;

pub(crate) fn tables(bench: &mut Bench) {
    let server = match Service::Postgres.find_or_start() {
        Ok(server) => server,
        Err(error) => return eprintln!("job_queue is left out: {error}"),
    };
    let by_queue =
        |places: usize, jobs: usize| measure(server.url(), jobs, move |pool| work(pool, places, jobs));
    let by_hand = |most: i64, jobs: usize| measure(server.url(), jobs, move |pool| take(pool, most));
    let rows = bench.size(1_000);
    let table = Table::new(
        "job_queue",
        format!("{rows} jobs that do nothing"),
        "µs/job",
        Flavour::CurrentThread,
        rows,
    )
    .recipe("job_queue, 100 places", by_queue(100, rows))
    .recipe("job_queue, 1 place", by_queue(1, rows))
    .peer("by hand, a transaction for each job", by_hand(1, rows))
    .floor("by hand, a transaction for 100 jobs", by_hand(100, rows));
    bench.measure(table);

    let title = |jobs: usize| format!("{jobs} jobs wait, 100 places");
    for jobs in [1_000, 10_000].map(|jobs| bench.size(jobs)) {
        let table = Table::new("job_queue", title(jobs), "µs/job", Flavour::CurrentThread, jobs)
            .grown_from(title(bench.size(1_000)))
            .recipe("job_queue", by_queue(100, jobs));
        bench.measure(table);
    }
}

/// Times `work` on a table with so many jobs in it.
fn measure<F: Future<Output = ()> + Send>(
    url: &str,
    jobs: usize,
    work: impl Fn(PgPool) -> F + Send + Sync + 'static,
) -> Measure {
    let (options, work): (PgConnectOptions, _) = (url.parse().expect("it answers"), Arc::new(work));
    let options = options.options([("search_path", "benches")]);
    stopwatch(move || {
        let (options, work) = (options.clone(), work.clone());
        async move {
            let pool = pool_options().connect_with(options).await.expect("it answers");
            raw_sql("CREATE SCHEMA IF NOT EXISTS benches")
                .execute(&pool)
                .await
                .expect("it may create a schema");
            raw_sql(SCHEMA).execute(&pool).await.expect("the schema is its own");
            raw_sql("TRUNCATE job").execute(&pool).await.expect("the table is there");
            let many = "INSERT INTO job (queue, payload, attempts_left) SELECT 'mail', 'ada', 5 FROM generate_series(1, $1)";
            query(many).bind(jobs as i64).execute(&pool).await.expect("the table is there");
            raw_sql("ANALYZE job").execute(&pool).await.expect("the table is there");
            let start = Instant::now();
            work(pool.clone()).await;
            let took = start.elapsed();
            let left: i64 =
                query_scalar("SELECT count(*) FROM job").fetch_one(&pool).await.expect("it is there");
            assert_eq!(left, 0);
            pool.close().await;
            took
        }
    })
}

async fn work(pool: PgPool, places: usize, jobs: usize) {
    let (left, all) = (Arc::new(AtomicUsize::new(jobs)), Arc::new(Notify::new()));
    let ended = all.clone();
    let each = move |_: Job| {
        if left.fetch_sub(1, Relaxed) == 1 {
            ended.notify_one();
        }
        ready(Ok::<(), String>(()))
    };
    let places = NonZeroUsize::new(places).unwrap_or(NonZeroUsize::MIN);
    JobQueue::new(pool, "mail").work(places, all.notified(), each).await.expect("the server answers");
}

/// Holds the rows locked while it works: no lease, no attempts, and a connection for each worker.
async fn take(pool: PgPool, most: i64) {
    let take = "DELETE FROM job WHERE id = ANY (ARRAY(
        SELECT id FROM job WHERE queue = 'mail' ORDER BY due, id LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING payload";
    loop {
        let mut transaction = pool.begin().await.expect("the server answers");
        let jobs: Vec<String> =
            query_scalar(take).bind(most).fetch_all(&mut *transaction).await.expect("it is there");
        transaction.commit().await.expect("nobody else writes");
        if jobs.is_empty() {
            return;
        }
    }
}
