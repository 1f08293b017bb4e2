//! Visit a tree of pages: each page's task starts tasks for its links, a few run at a time, and one does not want to stop.
//!
//! ```console
//! cargo run --example task_group
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use gather::{Rules, Scope, TaskGroup};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, try_record};

/// Visit a tree of pages with a task for each; one fails, which stops the others, and one of those has to be aborted.
#[derive(Parser)]
struct Args {
    /// How many pages may be visited at a time
    #[arg(long, default_value = "4")]
    limit: NonZeroUsize,
    /// Milliseconds that the others get when one has failed
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    grace: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let site = Site { client: Client::new(), root: api.url("/users") };
    let rules = Rules { limit: args.limit, grace: Duration::from_millis(args.grace), ..Rules::default() };

    let (result, picture) = try_record("task_group", async {
        let group = TaskGroup::new(rules);
        let visit_root = |scope| visit(scope, site, 1).try_lane("page 1");
        // Nothing can have stopped the group yet.
        let _ = group.spawn("page 1", visit_root).await;
        group.wait().await
    })
    .await;

    if let Err(stopped) = result {
        for (page, error) in stopped.failures {
            println!("{page} failed: {error}");
        }
        println!("aborted after {} ms of grace: {:?}", args.grace, stopped.overstayed);
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

#[derive(Clone)]
struct Site {
    client: Client,
    root: String,
}

/// Fetches page `n`, whose links are the pages 2n and 2n + 1, and starts a task for each of them.
///
/// Not an `async fn`, because it starts itself: the compiler wants to know that the future is `Send` before it has seen it.
#[expect(clippy::manual_async_fn, reason = "an async fn cannot say that its future is Send")]
fn visit(
    mut scope: Scope<reqwest::Error>,
    site: Site,
    n: u32,
) -> impl Future<Output = reqwest::Result<()>> + Send {
    async move {
        let fault = match n {
            5 => "latency=1000",
            6 => "latency=200&status=500",
            7 => "latency=1500",
            _ => "latency=30..60",
        };
        let request = site.client.get(format!("{}/{n}?{fault}", site.root)).send();
        let response = if n == 7 {
            request.await // does not listen
        } else {
            tokio::select! {
                response = request => response,
                () = scope.stopping() => return Ok(()),
            }
        };
        response.and_then(reqwest::Response::error_for_status).map_err(reqwest::Error::without_url)?;
        for link in [2 * n, 2 * n + 1].into_iter().filter(|link| *link < 8) {
            let (site, name) = (site.clone(), format!("page {link}"));
            // Named inside the task, so that its lane belongs to the group and not to this page.
            let lane = name.clone();
            let visit_link = |scope| async move { visit(scope, site, link).try_lane(lane).await };
            if scope.spawn(name, visit_link).await.is_err() {
                break; // the group is stopping
            }
        }
        Ok(())
    }
}
