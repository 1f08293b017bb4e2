//! The mistake: `BEGIN` as a statement of its own, in a call that can be given up.
//!
//! Symptom: the next user of the connection is in a transaction that it did not begin. What it writes, nobody else sees.
//! Cause: the connection goes back to the pool when it is dropped, and the pool does not know that it is in a transaction.
//! Fix: `transaction`, which closes a connection that is not known to be outside of one.
//!
//! The picture varies with the machine's load: the database is a real file.
//!
//! ```console
//! cargo run --example trap_cancelled_transaction
//! ```

use clap::Parser;
use db_fanout::{ATTEMPTS, Failed, Open, transaction};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, query, query_scalar, raw_sql};
use support::lanes::{LaneExt, PictureArgs, record};
use tempfile::TempDir;
use tokio::sync::Notify;

// ANCHOR: wrong
/// Begins, writes, and waits for something before it commits.
async fn order_wrong(pool: &SqlitePool, written: &Notify) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    query("INSERT INTO orders VALUES ('user 1')").execute(&mut *connection).await?;
    written.notify_one();
    payment().await;
    query("COMMIT").execute(&mut *connection).await?;
    Ok(())
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same in a transaction that ends when its caller does.
async fn order_right(pool: &SqlitePool, written: &Notify) -> Result<(), Failed<sqlx::Error>> {
    let work = async |mut open: Open<Sqlite>| {
        query("INSERT INTO orders VALUES ('user 1')").execute(&mut *open).await?;
        written.notify_one();
        payment().await;
        Ok(())
    };
    transaction(pool, "BEGIN IMMEDIATE", ATTEMPTS, work).await
}
// ANCHOR_END: right

/// Takes longer than the caller's patience.
async fn payment() {
    std::future::pending().await
}

// ANCHOR: next
/// User 1 gives up before it has paid. Then user 2 writes an order, without an error; what do they see?
async fn next(pools: &Pools, order: impl AsyncFnOnce(&SqlitePool, &Notify)) -> sqlx::Result<Orders> {
    let written = &Notify::new();
    tokio::select! {
        biased;
        () = written.notified() => {}
        () = order(&pools.users, written).lane("user 1") => {}
    }
    let user_2 = async {
        let mut connection = pools.users.acquire().await?;
        query("INSERT INTO orders VALUES ('user 2')").execute(&mut *connection).await?;
        let count = "SELECT count(*) FROM orders";
        let user_2_sees = query_scalar(count).fetch_one(&mut *connection).await?;
        let others_see = query_scalar(count).fetch_one(&pools.others).await?;
        sqlx::Result::Ok(Orders { user_2_sees, others_see })
    };
    user_2.lane("user 2").await
}
// ANCHOR_END: next

/// How many orders there are, after user 2 has made the only one that was wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Orders {
    /// On the connection that user 1 has used before.
    pub user_2_sees: i64,
    /// On any other.
    pub others_see: i64,
}

/// What is left after a `BEGIN` by hand was given up.
pub async fn wrong(pools: &Pools) -> sqlx::Result<Orders> {
    next(pools, async |pool, written| drop(order_wrong(pool, written).await)).await
}

/// What is left after a `transaction` was given up.
pub async fn right(pools: &Pools) -> sqlx::Result<Orders> {
    next(pools, async |pool, written| drop(order_right(pool, written).await)).await
}

/// Two pools of one connection each, on the same file with an empty table.
pub struct Pools {
    users: SqlitePool,
    others: SqlitePool,
    _folder: TempDir,
}

impl Pools {
    /// On a new file.
    pub async fn open() -> sqlx::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file =
            SqliteConnectOptions::new().filename(folder.path().join("orders.db")).create_if_missing(true);
        let file = file.journal_mode(SqliteJournalMode::Wal);
        let pool = async || SqlitePoolOptions::new().max_connections(1).connect_with(file.clone()).await;
        let (users, others) = (pool().await?, pool().await?);
        raw_sql("CREATE TABLE orders (who TEXT NOT NULL)").execute(&others).await?;
        Ok(Pools { users, others, _folder: folder })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    println!("user 1 gives up before it has paid; then user 2 makes an order");
    let pools = Pools::open().await?;
    let (orders, left) = record("BEGIN by hand", wrong(&pools)).await;
    println!("BEGIN by hand: {}", told(&orders?));
    let pools = Pools::open().await?;
    let (orders, right) = record("transaction", right(&pools)).await;
    println!("transaction:   {}", told(&orders?));
    args.show(&left.beside(right))?;
    Ok(())
}

fn told(orders: &Orders) -> String {
    format!("user 2 sees {}, everybody else sees {}", orders.user_2_sees, orders.others_see)
}
