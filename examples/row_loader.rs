//! Feeds whose stories each want their author: few queries load the authors of all feeds.
//!
//! ```console
//! cargo run --example row_loader
//! cargo run --example row_loader -- --feeds 100 --round-trip 20 --queries 2
//! ```
//!
//! The picture varies with the machine: the times are those of real queries.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use db_fanout::{RowLoader, rows_by_key};
use futures::future::try_join_all;
use producer_consumer::BatchLoader;
use sqlx::query;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// Load the authors of many feeds' stories from SQLite by few queries.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all authors were found, 1 a query failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// How many feeds are asked for; one comes every 2 milliseconds
    #[arg(long, default_value = "12", value_parser = clap::value_parser!(i64).range(1..=500))]
    feeds: i64,
    /// How many queries may run at a time
    #[arg(long, default_value = "1")]
    queries: NonZeroUsize,
    /// Milliseconds that a query waits before it is sent, as if the database was far away
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u64).range(..=1_000))]
    round_trip: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

const AUTHORS: i64 = 100_000;
const BY_ID: [&str; 2] = ["SELECT id, name FROM authors WHERE id IN (", ")"];
/// In each feed. Every second one is by the author of the one before.
const STORIES: i64 = 8;
/// More than 32,766 SQLite does not take.
const KEYS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir().context("no room for files")?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("feeds.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(file).await?;
    query("CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").execute(&pool).await?;
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO authors SELECT i, 'Author ' || i FROM n";
    query(fill).bind(AUTHORS).execute(&pool).await?;

    let (number, round_trip) = (AtomicUsize::new(0), Duration::from_millis(args.round_trip));
    let own = pool.clone();
    let find = move |ids: Vec<i64>| {
        let (pool, number) = (own.clone(), number.fetch_add(1, Relaxed) + 1);
        println!("query {number}: {} authors", ids.len());
        let find = async move {
            sleep(round_trip).await;
            rows_by_key::<_, i64, String>(pool, BY_ID, ids).await
        };
        find.try_lane(format!("query {number}"))
    };
    let (found, picture) = record("row_loader", async {
        // One for the program.
        let shared = BatchLoader::new(KEYS, args.queries, find);
        let feeds =
            try_join_all((0..args.feeds).map(|feed| feed_of(&shared, feed).try_lane(format!("feed {feed}"))));
        tokio::select! {
            found = feeds => Some(found),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    pool.close().await;
    let Some(found) = found else {
        args.picture.show(&picture).context("cannot write the picture")?;
        return Ok(ExitCode::from(130));
    };
    let found = found?;
    let different: BTreeSet<&String> = found.iter().flatten().collect();
    println!("{} stories of {} authors", found.iter().flatten().count(), different.len());
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(ExitCode::SUCCESS)
}

/// The names of the authors, by story. Each story loads its own author, and knows nothing of the others.
async fn feed_of(
    shared: &BatchLoader<i64, Vec<String>, sqlx::Error>,
    feed: i64,
) -> anyhow::Result<Vec<String>> {
    waiting("timer", sleep(Duration::from_millis(2 * feed.unsigned_abs()))).await;
    // One for each request.
    let request = RowLoader::new(shared);
    let authors = (0..STORIES).map(|story| {
        let request = &request;
        async move {
            let id = 1 + (feed * 7 + story / 2 * 13) % AUTHORS;
            let names = waiting("batch", request.load(id)).await.map_err(anyhow::Error::from)?;
            names
                .and_then(|names| names.into_iter().next())
                .with_context(|| format!("there is no author {id}"))
        }
    });
    let authors: Vec<String> = try_join_all(authors).await?;
    ensure!(authors.len() as i64 == STORIES, "a story is missing");
    Ok(authors)
}
