//! What happens at an `.await`: polls, wakers, and a future that nobody wakes.
//!
//! ```console
//! cargo run --example wake
//! ```

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{Instant, Sleep, sleep, timeout};

// ANCHOR: future
/// A future that tells what is asked of it, and what it answers.
struct Tells {
    name: &'static str,
    start: Instant,
    polls: u32,
    timer: Pin<Box<Sleep>>,
}

impl Tells {
    fn new(name: &'static str, ms: u64) -> Self {
        let timer = Box::pin(sleep(Duration::from_millis(ms)));
        Tells { name, start: Instant::now(), polls: 0, timer }
    }
}

impl Future for Tells {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        self.polls += 1;
        let (name, at, polls) = (self.name, self.start.elapsed().as_millis(), self.polls);
        // The timer keeps a clone of `context.waker()`, and calls it when the time is up.
        match self.timer.as_mut().poll(context) {
            Poll::Pending => {
                println!("{at:>3} ms  {name}, poll {polls}: not yet, the timer will wake my task");
                Poll::Pending
            }
            Poll::Ready(()) => {
                println!("{at:>3} ms  {name}, poll {polls}: ready");
                Poll::Ready(polls)
            }
        }
    }
}
// ANCHOR_END: future

// ANCHOR: forgets
/// A future that answers "not yet" and keeps no waker.
struct Forgets {
    polls: u32,
}

impl Future for Forgets {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polls += 1;
        if self.polls == 3 { Poll::Ready(()) } else { Poll::Pending }
    }
}
// ANCHOR_END: forgets

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let all = async {
        println!("a future that waits for a timer:");
        let polls = waiting("timer", Tells::new("alone", 20)).lane("alone").await;
        println!("        {polls} polls in all: none while nothing has changed");

        println!("two of them in one task:");
        // ANCHOR: pin
        let mut slow = pin!(Tells::new("slow", 30));
        let fast = Tells::new("fast", 10);
        tokio::select! {
            biased;
            _ = waiting("timer", &mut slow).lane("slow") => {}
            _ = waiting("timer", fast).lane("fast") => {}
        }
        // The one that has lost is as it was, since it was polled by reference.
        waiting("timer", slow).lane("slow, again").await;
        // ANCHOR_END: pin

        println!("a future that keeps no waker:");
        let mut forgets = Forgets { polls: 0 };
        let ended = timeout(Duration::from_millis(40), &mut forgets).try_lane("forgets").await;
        println!(
            "        ended: {}; {} polls, the last when the timeout woke the task",
            ended.is_ok(),
            forgets.polls
        );
    };
    let ((), picture) = record("wake", all).await;
    args.show(&picture)
}
