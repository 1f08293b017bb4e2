//! The mistake: a rate limit that serves whoever asks at the right moment.
//!
//! Symptom: who needs ten tokens at once gets none, while callers that come later go on with one each.
//! Cause: in governor every waiter sleeps by itself and then tries again. As long as others take each token as it comes,
//! there are never ten. leaky-bucket has a queue, and puts whoever asks again at once at its front.
//! Fix: a limit that serves waiters in the order in which they came, such as `RateLimit`.
//!
//! The picture varies with the machine's load, since governor knows no clock but the real one.
//!
//! ```console
//! cargo run --example trap_rate_limit_starves
//! ```

use std::cell::Cell;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::Parser;
use governor::Quota;
use leaky_bucket::RateLimiter;
use semaphores::{Rate, RateLimit};
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::time::{sleep, timeout};

/// Tokens a second.
const RATE: u32 = 40;
/// What the large request needs, and the burst.
const LARGE: u32 = 10;
/// Callers that ask for one token, hand out a job, and ask again.
pub const GREEDY: usize = 4;
/// How long the large request waits before it gives up: the time in which 24 tokens come.
const PATIENCE: Duration = Duration::from_millis(600);

/// What became of the large request.
#[derive(Debug)]
pub struct Seen {
    /// Whether it got its tokens.
    pub served: bool,
    /// How many small requests were served meanwhile.
    pub overtaken_by: usize,
}

/// A large request beside callers that take one token after the other.
async fn watch(acquire: impl AsyncFn(u32)) -> Seen {
    // What the burst has saved up is gone.
    acquire(LARGE).await;
    let small = Cell::new(0);
    let greedy = async |number: usize| {
        let calls = async {
            loop {
                waiting("permit", acquire(1)).await;
                small.set(small.get() + 1);
                level("small requests served", small.get());
            }
        };
        calls.lane(format!("one at a time {number}")).await
    };
    let large = async {
        // The others are there first.
        sleep(Duration::from_millis(1)).await;
        let large = timeout(PATIENCE, waiting("permit", acquire(LARGE)));
        large.try_lane("ten at once").await.is_ok()
    };
    let greedy = futures::future::join_all((1..=GREEDY).map(greedy));
    tokio::select! {
        biased;
        served = large => Seen { served, overtaken_by: small.get() },
        _ = greedy => unreachable!("they go on for ever"),
    }
}

fn not_zero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

// ANCHOR: wrong
/// With governor.
pub async fn wrong() -> Seen {
    let limit = governor::RateLimiter::direct(Quota::per_second(not_zero(RATE)).allow_burst(not_zero(LARGE)));
    watch(async |tokens| limit.until_n_ready(not_zero(tokens)).await.expect("no more than the burst")).await
}
// ANCHOR_END: wrong

// ANCHOR: leaky
/// With leaky-bucket and its default, which it calls fair.
pub async fn leaky_bucket() -> Seen {
    leaky(true).await
}

/// With leaky-bucket, told not to be fair.
pub async fn leaky_bucket_unfair() -> Seen {
    leaky(false).await
}

async fn leaky(fair: bool) -> Seen {
    let (interval, max) = (Duration::from_secs(1) / RATE, LARGE as usize);
    let limit = RateLimiter::builder().initial(max).max(max).interval(interval).fair(fair).build();
    watch(async |tokens| limit.acquire(tokens as usize).await).await
}
// ANCHOR_END: leaky

// ANCHOR: right
/// With `RateLimit`.
pub async fn right() -> Seen {
    let [tokens, burst] = [RATE, LARGE].map(|n| NonZeroUsize::new(n as usize).unwrap_or(NonZeroUsize::MIN));
    let limit = RateLimit::new(Rate { tokens, per: Duration::from_secs(1), burst });
    watch(async |tokens| limit.acquire(tokens as usize).await.expect("no more than the burst")).await
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let say = |name, Seen { served, overtaken_by }| {
        let how = if served { "was served" } else { "gave up after 600 ms" };
        println!("{name}: the request for ten {how}; {overtaken_by} small ones were served meanwhile");
    };
    // governor has a clock of its own, so this runs in real time.
    let (seen, left) = record("governor", wrong()).await;
    say("governor", seen);
    let (seen, middle) = record("leaky-bucket", leaky_bucket()).await;
    say("leaky-bucket", seen);
    let (seen, right) = record("RateLimit", right()).await;
    say("RateLimit", seen);
    args.show(&left.beside(middle).beside(right))
}
