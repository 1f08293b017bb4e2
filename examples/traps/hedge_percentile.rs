//! The mistake: trusting a hedge at the 95th percentile to add 5 % to the load, and to shield from errors.
//!
//! Symptom: far more calls are hedged than one in twenty, and a failed hedge ends a call that was about to succeed.
//! Cause: a first copy that lost is dropped and never measured, so slow calls look rare; and the first to end wins.
//! Fix: count what was dropped as "at least so long", and take the first success.
//!
//! ```console
//! cargo run --example trap_hedge_percentile
//! ```

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use futures::FutureExt;
use support::lanes::{LaneExt, PictureArgs, try_record};
use timeouts::{BothFailed, Latencies, RetryBudget, hedge};
use tokio::time::sleep;
use tower::hedge::{Hedge, Policy};
use tower::{BoxError, Service, ServiceExt, service_fn};

const CALLS: usize = 20_000;
const WINDOW: NonZeroUsize = NonZeroUsize::new(1000).expect("1000 is not zero");

/// Every call may be hedged.
#[derive(Clone)]
pub struct Always;

impl<R: Clone> Policy<R> for Always {
    fn clone_request(&self, request: &R) -> Option<R> {
        Some(request.clone())
    }

    fn can_retry(&self, _request: &R) -> bool {
        true
    }
}

/// A latency of 100 ms on average, exponentially distributed.
fn latency(random: &mut fastrand::Rng) -> Duration {
    Duration::from_secs_f64(-0.1 * (1.0 - random.f64()).ln())
}

// ANCHOR: wrong
/// The share of calls that are hedged at 0.95.
pub async fn wrong() -> Result<f64, BoxError> {
    let random = Rc::new(RefCell::new(fastrand::Rng::with_seed(7)));
    let copies = Rc::new(Cell::new(0));
    let counted = copies.clone();
    let service = service_fn(move |()| {
        counted.set(counted.get() + 1);
        let latency = latency(&mut random.borrow_mut());
        async move { sleep(latency).map(Ok::<_, Infallible>).await }
    });
    let mut hedged = Hedge::new(service, Always, 500, 0.95, Duration::from_secs(100));
    for _ in 0..CALLS {
        hedged.ready().await?.call(()).await?;
    }
    Ok((copies.get() - CALLS) as f64 / CALLS as f64)
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The share of calls that are hedged at 0.95.
pub async fn right() -> Result<f64, BoxError> {
    let mut random = fastrand::Rng::with_seed(7);
    let latencies = Latencies::new(0.95, WINDOW)?;
    let budget = RetryBudget::new(10, WINDOW);
    let copies = Cell::new(0);
    for _ in 0..CALLS {
        let copy = |_| {
            copies.set(copies.get() + 1);
            let latency = latency(&mut random);
            async move { sleep(latency).map(Ok::<_, Infallible>).await }
        };
        hedge(&latencies, &budget, copy).await?;
    }
    Ok((copies.get() - CALLS) as f64 / CALLS as f64)
}
// ANCHOR_END: right

// ANCHOR: error
/// The first copy succeeds after 30 ms; the second, which starts after 10 ms, fails at once.
async fn copy(number: usize) -> Result<&'static str, &'static str> {
    let work = async {
        sleep(Duration::from_millis(if number == 1 { 30 } else { 1 })).await;
        if number == 1 { Ok("answer") } else { Err("refused") }
    };
    work.try_lane(format!("copy {number}")).await
}

/// With tower, which has seen latencies of 10 ms.
pub async fn wrong_error() -> Result<&'static str, BoxError> {
    let copies = Rc::new(Cell::new(0));
    let service = service_fn(move |()| {
        copies.set(copies.get() + 1);
        copy(copies.get())
    });
    let period = Duration::from_secs(60);
    let mut hedged = Hedge::new_with_mock_latencies(service, Always, 10, 0.95, period, &[10; 10]);
    hedged.ready().await?.call(()).await
}

/// With `hedge`, which has seen latencies of 10 ms.
pub async fn right_error() -> Result<&'static str, BothFailed<&'static str>> {
    let latencies = Latencies::new(0.95, NonZeroUsize::MIN).expect("0.95 is a quantile");
    let budget = RetryBudget::new(10, NonZeroUsize::MIN);
    let usual = async |_| {
        sleep(Duration::from_millis(10)).await;
        Ok("usual")
    };
    hedge(&latencies, &budget, usual).await?;
    hedge(&latencies, &budget, copy).await
}
// ANCHOR_END: error

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let args = PictureArgs::parse();
    println!("wrong: {:.1} % of the calls were hedged at the 95th percentile", wrong().await? * 100.0);
    println!("right: {:.1} % of the calls were hedged at the 95th percentile", right().await? * 100.0);
    let (result, left) = try_record("tower", wrong_error()).await;
    println!("wrong: {result:?}");
    let (result, right) = try_record("hedge", right_error()).await;
    println!("right: {result:?}");
    args.show(&left.beside(right))?;
    Ok(())
}
