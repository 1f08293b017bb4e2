//! A page from three questions to a database: asked side by side over a pool, and by what else would do.
//!
//! ```console
//! cargo run --example user_page
//! cargo run --example user_page -- --users 200 --connections 8 --round-trip 0
//! cargo run --example user_page --features postgres -- --database-url postgres://me@localhost/mine
//! ```
//!
//! The picture varies with the machine: the times are those of real queries.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use db_fanout::FanOut;
use futures::future::{join_all, try_join_all};
use producer_consumer::BatchLoader;
use sqlx::query_builder::QueryBuilder;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Database, Encode, Executor, FromRow, IntoArguments, Pool, Type, query, query_as, query_scalar};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{Instant, sleep};

/// Show the pages of users, each put together from three queries over a pool, and what each way to ask costs.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all pages were shown, 1 something failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// How many pages are asked for at a time
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(i64).range(3..=USERS))]
    users: i64,
    /// How many connections the pool has; one of them is kept for others
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(2..=100))]
    connections: u32,
    /// Milliseconds that each query waits before it is sent, as if the database was far away [default: 2, or 0 with a database's URL]
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=1_000))]
    round_trip: Option<u64>,
    /// A PostgreSQL database to make the tables in (feature `postgres`); without it, SQLite in a temporary folder
    #[arg(long)]
    database_url: Option<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// As many profiles, and five times as many orders: 140,000 rows in all.
const USERS: i64 = 20_000;
const TABLES: [&str; 3] = [
    "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE TABLE profiles (user_id BIGINT PRIMARY KEY, bio TEXT NOT NULL)",
    "CREATE TABLE orders (id BIGINT NOT NULL, user_id BIGINT NOT NULL, item TEXT NOT NULL)",
];
const ROWS: [&str; 3] = [
    "WITH RECURSIVE numbers (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
     INSERT INTO users SELECT n, 'User ' || n FROM numbers",
    "WITH RECURSIVE numbers (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
     INSERT INTO profiles SELECT n, 'Collects ' || (2 + n % 7) || ' sorts of stamps' FROM numbers",
    "WITH RECURSIVE numbers (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < 5 * $1)
     INSERT INTO orders SELECT n, 1 + n * 7919 % $1, 'stamp ' || n FROM numbers",
];
const USER: &str = "SELECT id, name FROM users WHERE id = $1";
const PROFILE: &str = "SELECT user_id, bio FROM profiles WHERE user_id = $1";
const ORDERS: &str = "SELECT user_id, item FROM orders WHERE user_id = $1 ORDER BY id";
const PAGE: &str =
    "SELECT users.name, profiles.bio, orders.item FROM users JOIN profiles ON profiles.user_id = users.id
                    LEFT JOIN orders ON orders.user_id = users.id WHERE users.id = $1 ORDER BY orders.id";

#[derive(Debug, PartialEq)]
struct Page {
    name: String,
    bio: String,
    orders: Vec<String>,
}

/// What all queries need.
struct Shop<DB: Database> {
    pool: Pool<DB>,
    fan_out: FanOut<DB>,
    round_trip: Duration,
    queries: AtomicUsize,
}

impl<DB> Shop<DB>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'r> (i64,): FromRow<'r, DB::Row>,
    for<'r> (i64, String): FromRow<'r, DB::Row>,
    for<'r> (String, String, Option<String>): FromRow<'r, DB::Row>,
{
    fn new(pool: Pool<DB>, round_trip: Duration) -> anyhow::Result<Self> {
        // Shorter than anybody waits for a page.
        let fan_out = FanOut::new(pool.clone(), 1, Duration::from_secs(5))?;
        Ok(Shop { pool, fan_out, round_trip, queries: AtomicUsize::new(0) })
    }

    /// Makes the tables and their rows, all or nothing.
    async fn fill(&self) -> anyhow::Result<()> {
        let mut transaction = self.pool.begin().await?;
        for table in TABLES {
            query(table).execute(&mut *transaction).await?;
        }
        for rows in ROWS {
            query(rows).bind(USERS).execute(&mut *transaction).await?;
        }
        // An index is made faster at once than row by row.
        query("CREATE INDEX orders_of_user ON orders (user_id, id)").execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The rows that are about one user, by a query in a lane of its own.
    async fn ask<T>(&self, lane: &str, sql: &'static str, id: i64) -> anyhow::Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, DB::Row> + Send + Unpin,
    {
        let ask = async {
            let mut connection = waiting("permit", self.fan_out.acquire()).await?;
            self.travel().await;
            Ok(query_as(sql).bind(id).fetch_all(&mut *connection).await?)
        };
        ask.try_lane(format!("{lane} {id}")).await
    }

    async fn travel(&self) {
        self.queries.fetch_add(1, Relaxed);
        if !self.round_trip.is_zero() {
            sleep(self.round_trip).await;
        }
    }

    /// Three queries side by side, each over a connection of its own.
    async fn page(&self, id: i64) -> anyhow::Result<Page> {
        let user = self.ask("user", USER, id);
        let profile = self.ask("profile", PROFILE, id);
        let orders = self.ask("orders", ORDERS, id);
        let (user, profile, orders) = tokio::try_join!(user, profile, orders)?;
        page(user, profile, orders)
    }

    /// The same queries, one after the other.
    async fn page_one_by_one(&self, id: i64) -> anyhow::Result<Page> {
        let user = self.ask("user", USER, id).await?;
        let profile = self.ask("profile", PROFILE, id).await?;
        let orders = self.ask("orders", ORDERS, id).await?;
        page(user, profile, orders)
    }

    /// One query, whose rows repeat the user for each order.
    async fn page_of_one_query(&self, id: i64) -> anyhow::Result<Page> {
        let rows: Vec<(String, String, Option<String>)> = self.ask("page", PAGE, id).await?;
        let (name, bio, _) = rows.first().with_context(|| format!("there is no user {id}"))?.clone();
        Ok(Page { name, bio, orders: rows.into_iter().filter_map(|(_, _, item)| item).collect() })
    }

    /// The rows that are about any of `ids`, by user: one query for all.
    async fn ask_for_all(
        &self,
        sql: &'static str,
        ids: Vec<i64>,
    ) -> anyhow::Result<HashMap<i64, Vec<String>>> {
        let mut select = QueryBuilder::<DB>::new(sql);
        let mut list = select.separated(", ");
        ids.iter().for_each(|id| _ = list.push_bind(*id));
        select.push(") ORDER BY 1, id");
        let mut connection = self.fan_out.acquire().await?;
        self.travel().await;
        let rows: Vec<(i64, String)> = select.build_query_as().fetch_all(&mut *connection).await?;
        let mut found = HashMap::new();
        for (id, text) in rows {
            found.entry(id).or_insert_with(Vec::new).push(text);
        }
        Ok(found)
    }

    /// How many connections the pool has open; over the one that is kept for others.
    async fn health(&self) -> anyhow::Result<u32> {
        sleep(self.round_trip / 2).await;
        let mut connection = waiting("permit", self.pool.acquire()).await?;
        self.travel().await;
        let one: i64 = query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(&mut *connection).await?;
        ensure!(one == 1, "the database cannot count");
        Ok(self.pool.size())
    }
}

/// The first user, the first profile, and all orders.
fn page(
    user: Vec<(i64, String)>,
    profile: Vec<(i64, String)>,
    orders: Vec<(i64, String)>,
) -> anyhow::Result<Page> {
    let (id, name) = user.into_iter().next().context("there is no such user")?;
    let (_, bio) = profile.into_iter().next().with_context(|| format!("user {id} has no profile"))?;
    Ok(Page { name, bio, orders: orders.into_iter().map(|(_, item)| item).collect() })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match &args.database_url {
        None => {
            let folder = tempfile::tempdir().context("no room for files")?;
            let file = SqliteConnectOptions::new().filename(folder.path().join("shop.db"));
            let file = file.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
            let pool = SqlitePoolOptions::new().max_connections(args.connections).connect_with(file).await?;
            let shown = unless_stopped(show(pool.clone(), 2, &args)).await;
            pool.close().await;
            shown
        }
        Some(url) => show_postgres(url, &args).await,
    }
}

async fn unless_stopped(shown: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    tokio::select! {
        shown = shown => shown.map(|()| ExitCode::SUCCESS),
        // An error means that signals cannot be caught: then there is nothing to wait for.
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    }
}

#[cfg(feature = "postgres")]
async fn show_postgres(url: &str, args: &Args) -> anyhow::Result<ExitCode> {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    // The tables are in a schema of their own, which nobody else has.
    let options: PgConnectOptions = url.parse().context("the database's URL")?;
    let options = options.options([("search_path", "tokio_patterns_user_page")]);
    let pool = PgPoolOptions::new().max_connections(args.connections).connect_with(options).await?;
    pool.execute("DROP SCHEMA IF EXISTS tokio_patterns_user_page CASCADE").await?;
    pool.execute("CREATE SCHEMA tokio_patterns_user_page").await?;
    let shown = unless_stopped(show(pool.clone(), 0, args)).await;
    pool.execute("DROP SCHEMA tokio_patterns_user_page CASCADE").await?;
    pool.close().await;
    shown
}

#[cfg(not(feature = "postgres"))]
async fn show_postgres(_: &str, _: &Args) -> anyhow::Result<ExitCode> {
    std::future::ready(Err(anyhow::anyhow!("--database-url needs `--features postgres`"))).await
}

/// Shows pages and what they cost.
async fn show<DB>(pool: Pool<DB>, round_trip: u64, args: &Args) -> anyhow::Result<()>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'r> (i64,): FromRow<'r, DB::Row>,
    for<'r> (i64, String): FromRow<'r, DB::Row>,
    for<'r> (String, String, Option<String>): FromRow<'r, DB::Row>,
{
    let round_trip = Duration::from_millis(args.round_trip.unwrap_or(round_trip));
    let shop = Arc::new(Shop::new(pool, round_trip)?);
    let start = Instant::now();
    shop.fill().await.context("cannot make the tables")?;
    println!("{} rows in {} ms", 7 * USERS, start.elapsed().as_millis());
    // Connections are opened before, so that the picture is about queries.
    drop(try_join_all((0..args.connections).map(|_| shop.pool.acquire())).await?);
    while shop.pool.num_idle() < args.connections as usize {
        sleep(Duration::from_millis(1)).await;
    }

    let (shown, picture) = record("user_page", async {
        let pages = try_join_all((1..=3).map(|id| shop.page(id)));
        tokio::try_join!(pages, shop.health().try_lane("health check"))
    })
    .await;
    let (pages, connections) = shown?;
    for page in pages {
        println!("{}: {}; {} orders: {}", page.name, page.bio, page.orders.len(), page.orders.join(", "));
    }
    println!("{connections} connections, one of them kept for others\n");

    let ids = 1..=args.users;
    let mut all: Vec<Vec<Page>> = Vec::new();
    println!("{} pages, and {} ms to the database", args.users, round_trip.as_millis());
    let one_by_one = async {
        let mut pages = Vec::new();
        for id in ids.clone() {
            pages.push(shop.page_one_by_one(id).await?);
        }
        Ok(pages)
    };
    all.push(shop.cost("one query after the other", one_by_one).await?);
    let concurrent = try_join_all(ids.clone().map(|id| shop.page(id)));
    all.push(shop.cost("side by side over the pool", concurrent).await?);
    let joined = try_join_all(ids.clone().map(|id| shop.page_of_one_query(id)));
    all.push(shop.cost("one query for each page", joined).await?);

    let loader = |sql| {
        let shop = shop.clone();
        let load = move |ids| {
            let shop = shop.clone();
            async move { shop.ask_for_all(sql, ids).await.map_err(io::Error::other) }
        };
        // SQLite takes 32,766 parameters, PostgreSQL 65,535.
        BatchLoader::new(NonZeroUsize::new(1_000).unwrap_or(NonZeroUsize::MIN), NonZeroUsize::MIN, load)
    };
    let users = loader("SELECT id, name FROM users WHERE id IN (");
    let profiles = loader("SELECT user_id, bio, user_id AS id FROM profiles WHERE user_id IN (");
    let orders = loader("SELECT user_id, item FROM orders WHERE user_id IN (");
    let batched = join_all(ids.map(|id| {
        let (users, profiles, orders) = (&users, &profiles, &orders);
        async move {
            let (user, profile, orders) =
                tokio::try_join!(users.load(id), profiles.load(id), orders.load(id))?;
            let rows =
                |found: Option<Vec<String>>| found.into_iter().flatten().map(|text| (id, text)).collect();
            page(rows(user), rows(profile), rows(orders))
        }
    }));
    all.push(shop.cost("three batched loaders", async { batched.await.into_iter().collect() }).await?);
    ensure!(all.iter().all(|pages| *pages == all[0]), "the ways to ask do not agree");
    args.picture.show(&picture).context("cannot write the picture")
}

impl<DB: Database> Shop<DB> {
    /// Prints how many queries `pages` takes, and how long.
    async fn cost(
        &self,
        way: &str,
        pages: impl Future<Output = anyhow::Result<Vec<Page>>>,
    ) -> anyhow::Result<Vec<Page>> {
        let (before, start) = (self.queries.load(Relaxed), Instant::now());
        let pages = pages.await?;
        let (queries, time) = (self.queries.load(Relaxed) - before, start.elapsed());
        println!("{way:28} {queries:>5} queries {:>8.1} ms", time.as_secs_f64() * 1e3);
        Ok(pages)
    }
}
