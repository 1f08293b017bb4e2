//! Orders enqueue a mail each, two processes send the mails, and one of the two is killed at work.
//!
//! ```console
//! cargo run --example job_queue --features postgres
//! cargo run --example job_queue --features postgres -- --jobs 40 --lease 1000
//! ```
//!
//! It starts a PostgreSQL of its own, unless `DATABASE_URL` names one. The picture varies with the moments at which the processes
//! take their jobs.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use db_fanout::job_queue::{Job, JobQueue, SCHEMA, pool_options};
use futures::stream::{FuturesUnordered, StreamExt};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, query, query_as, query_scalar, raw_sql};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use support::services::Service;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::sleep;

const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
/// The job with which the first worker is killed.
const FATAL: usize = 3;

/// Put jobs into PostgreSQL, let two worker processes do them, and kill one of the two.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 each job was done once, 1 one was not or there is no PostgreSQL, 2 bad arguments, 130 Ctrl-C."
)]
struct Args {
    /// How many jobs there are
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=500))]
    jobs: u32,
    /// Milliseconds after which a silent worker's jobs are taken by another
    #[arg(long, default_value = "300", value_parser = clap::value_parser!(u64).range(30..=60_000))]
    lease: u64,
    /// Be one of the workers
    #[arg(long, hide = true, num_args = 2)]
    worker: Option<Vec<String>>,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(place) = &args.worker {
        let ended = work(&connect(&place[0], &place[1], args.lease).await?).await;
        // At once: a thread still reads the standard input.
        std::process::exit(i32::from(ended.inspect_err(|error| eprintln!("{error:#}")).is_err()));
    }
    // It ends with this value.
    let server = Service::Postgres.find_or_start()?;
    let schema = format!("job_queue_{}", std::process::id());
    let queue = connect(server.url(), &schema, args.lease).await.context("cannot reach PostgreSQL")?;
    let tables = "CREATE TABLE orders (number integer); CREATE TABLE mail (job bigint, attempt integer)";
    let tables = format!("CREATE SCHEMA {schema}; {SCHEMA}; {tables}");
    raw_sql(AssertSqlSafe(tables)).execute(&queue.pool).await?;

    let mut first = spawn(server.url(), &schema, args.lease)?;
    let mut second = spawn(server.url(), &schema, args.lease)?;
    let stop = (first.stdin.take(), second.stdin.take());
    let (ended, picture) = record("job_queue", async {
        let all_done = async {
            order(&queue, args.jobs).lane("orders").await?;
            while query_scalar::<_, i64>("SELECT count(*) FROM job").fetch_one(&queue.pool).await? > 0 {
                sleep(Duration::from_millis(5)).await;
            }
            drop(stop);
            Ok(())
        };
        // That it is killed is no failure.
        let first = async { Ok(_ = follow(first, Some(FATAL)).try_lane("worker 1").await) };
        let second = follow(second, None).try_lane("worker 2");
        let all = async { tokio::try_join!(all_done, first, second).map(drop) };
        tokio::select! {
            ended = all => Some(ended),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    let counts = "SELECT count(*), count(DISTINCT job), count(*) FILTER (WHERE attempt > 1) FROM mail";
    let (mails, jobs, again): (i64, i64, i64) = query_as(counts).fetch_one(&queue.pool).await?;
    println!(
        "{} jobs: {jobs} done, {again} of them by a second attempt, {} done twice",
        args.jobs,
        mails - jobs
    );
    raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&queue.pool).await?;
    queue.pool.close().await;
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some(ended) = ended else { return Ok(ExitCode::from(130)) };
    ended?;
    ensure!(mails == jobs && jobs == i64::from(args.jobs), "a job was lost or done twice");
    Ok(ExitCode::SUCCESS)
}

async fn connect(url: &str, schema: &str, lease: u64) -> anyhow::Result<JobQueue> {
    let options: PgConnectOptions = url.parse()?;
    let pool: PgPool = pool_options().connect_with(options.options([("search_path", schema)])).await?;
    Ok(JobQueue {
        lease: Duration::from_millis(lease),
        poll: Duration::from_millis(50),
        ..JobQueue::new(pool, "mail")
    })
}

/// Writes orders, each with its job in the same transaction. One is rolled back, and its job with it.
async fn order(queue: &JobQueue, jobs: u32) -> anyhow::Result<()> {
    for number in 0..=jobs {
        let mut transaction = queue.pool.begin().await?;
        query("INSERT INTO orders (number) VALUES ($1)")
            .bind(number as i32)
            .execute(&mut *transaction)
            .await?;
        queue.enqueue(&mut transaction, &format!("order {number}")).await?;
        if number == jobs { transaction.rollback().await? } else { transaction.commit().await? }
    }
    println!("{jobs} orders with a job each; one more was rolled back");
    Ok(())
}

/// What a worker process does until its standard input ends.
async fn work(queue: &JobQueue) -> anyhow::Result<()> {
    let own = queue.clone();
    let send = move |job: Job| {
        let queue = own.clone();
        async move {
            println!("begins {} {}", job.claim.id, job.claim.attempt);
            sleep(Duration::from_millis(60)).await;
            // The mail and the end of the job are one transaction.
            let mut transaction = queue.pool.begin().await?;
            let mail = query("INSERT INTO mail (job, attempt) VALUES ($1, $2)");
            mail.bind(job.claim.id).bind(job.claim.attempt).execute(&mut *transaction).await?;
            ensure!(queue.finish(&mut transaction, &[job.claim]).await? == 1, "the job is somebody else's");
            transaction.commit().await?;
            println!("ends {}", job.claim.id);
            Ok(())
        }
    };
    let stop = async { _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await };
    Ok(queue.work(TWO, stop, send).await?)
}

fn spawn(url: &str, schema: &str, lease: u64) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", url, schema, "--lease", &lease.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("cannot start a worker")
}

/// Draws what a worker prints, and kills it when it begins so many jobs.
async fn follow(mut worker: Child, fatal: Option<usize>) -> anyhow::Result<()> {
    let output = worker.stdout.take().context("it is piped")?;
    let mut lines = BufReader::new(output).lines();
    let (mut jobs, mut running, mut begun) = (FuturesUnordered::new(), HashMap::new(), 0);
    loop {
        let line = tokio::select! {
            biased;
            line = waiting("queue", lines.next_line()) => line?,
            Some(()) = jobs.next() => continue,
        };
        let Some(line) = line else {
            ensure!(worker.wait().await?.success(), "the worker has failed");
            return Ok(());
        };
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["begins", id, attempt] => {
                let (end, ended) = oneshot::channel::<()>();
                running.insert(id.to_string(), end);
                let job = async { _ = waiting("io", ended).await };
                jobs.push(job.lane(format!("job {id}, attempt {attempt}")));
                begun += 1;
            }
            ["ends", id] => drop(running.remove(id)),
            _ => {}
        }
        if Some(begun) == fatal {
            // Its last job is drawn as begun.
            _ = futures::poll!(jobs.next());
            worker.start_kill()?;
            worker.wait().await?;
            println!("worker 1 was killed; jobs in work: {}", running.len());
            bail!("killed");
        }
    }
}
