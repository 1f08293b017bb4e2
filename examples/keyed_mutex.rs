//! Send each user's orders one after the other, and the orders of different users together.
//!
//! ```console
//! cargo run --example keyed_mutex
//! cargo run --example keyed_mutex -- anna anna ben anna carl ben
//! ```

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use locks::KeyedMutex;
use reqwest::{Client, Response};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};

/// Send orders over HTTP: one at a time for each user, and different users together.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all sent, 1 an order failed, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// The user of each order, in the order in which they come
    #[arg(default_values = ["anna", "ben", "anna", "carl", "anna", "ben", "carl", "anna"])]
    users: Vec<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (client, url) = (Client::new(), api.url("/echo?latency=25"));

    let users = KeyedMutex::new();
    let arrived = std::cell::RefCell::new(BTreeMap::<&str, Vec<usize>>::new());
    let order = async |number: usize, user: &'static str| {
        let _guard = waiting("lock", users.lock(user)).await;
        let order = format!("order {number} of {user}");
        client.post(&url).body(order).send().await.and_then(Response::error_for_status)?;
        arrived.borrow_mut().entry(user).or_default().push(number);
        anyhow::Ok(())
    };
    // Each order is a future of its own: without the lock, those of one user could arrive in any order.
    let names: Vec<&'static str> = args.users.iter().map(|user| &*user.clone().leak()).collect();
    let orders = names.iter().enumerate();
    let orders = orders.map(|(at, user)| order(at + 1, user).try_lane(format!("order {} of {user}", at + 1)));
    let (results, picture) = record("keyed_mutex", async {
        tokio::select! {
            results = join_all(orders) => Some(results),
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;

    for (user, numbers) in arrived.borrow().iter() {
        println!("{user}: orders {numbers:?}");
    }
    println!("at a time: {}", api.gauge().peak());
    println!("keys left: {}", users.keys_in_use());
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some(results) = results else { return Ok(ExitCode::from(130)) };
    results.into_iter().collect::<anyhow::Result<()>>()?;
    ensure!(arrived.borrow().values().all(|numbers| numbers.is_sorted()), "a user's orders were mixed up");
    ensure!(api.gauge().peak() <= names.iter().collect::<HashSet<_>>().len(), "a user's orders overlapped");
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}
