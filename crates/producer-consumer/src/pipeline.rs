//! Pass items through stages that work at the same time, each with a width of its own.
//!
//! Use it when the steps differ in what they wait for: read, parse, store. For one step use `gather::map_concurrent`.
//! Each stage is a future between two channels of tokio; join them on one task with `tokio::try_join!`.
//!
//! | | |
//! |---|---|
//! | Order | [`stage`]: in which the work ends; [`stage_in_order`]: that of the input |
//! | Errors | the first error ends its stage, and by `try_join!` all of them at once; a stage that nobody reads from ends well |
//! | Cancellation | dropping the joined stages drops all their work with them; nothing is spawned |
//! | Panics | a panic of the work is the caller's panic; everything else is dropped first |
//! | Memory | O(width) of each stage, at work or finished and waiting, and the bounds of the channels |
//! | Backpressure | finished work waits for room in the output and keeps its place, so a stage pulls no faster than it is read |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use producer_consumer::{feed, stage_in_order};
//! use tokio::{sync::mpsc::channel, try_join};
//!
//! #[tokio::main]
//! async fn main() {
//!     let ((texts, input), (output, mut numbers)) = (channel(1), channel(3));
//!     let parse = stage_in_order(input, NonZeroUsize::MIN, async |text: &str| text.parse::<u8>(), output);
//!     assert!(try_join!(feed(["1", "x", "3"], texts), parse).is_err());
//!     assert_eq!((numbers.recv().await, numbers.recv().await), (Some(1), None));
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;

use futures::{Stream, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Sends `items` to the first stage, until they end or nobody takes them. It never fails: `E` is that of the stages.
pub async fn feed<T, E>(items: impl IntoIterator<Item = T>, output: mpsc::Sender<T>) -> Result<(), E> {
    for item in items {
        if output.send(item).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Runs `work` on what comes from `input`, at most `width` at a time, and sends each result as soon as it is there.
///
/// Returns when the input has ended and all is sent, or at once when the receiver of `output` is dropped. Dropping this
/// drops the input's receiver and the output's sender, which is the end for both neighbours.
///
/// # Errors
///
/// The first error of `work`. What else was at work is dropped.
pub async fn stage<A, B, E, F>(
    input: mpsc::Receiver<A>,
    width: NonZeroUsize,
    work: impl Fn(A) -> F,
    output: mpsc::Sender<B>,
) -> Result<(), E>
where
    F: Future<Output = Result<B, E>>,
{
    let (work, sender) = (&work, &output);
    let each = |item| async move {
        // An error means that nobody wants the result, and then this stage is about to be dropped.
        let _ = sender.send(work(item).await?).await;
        Ok(())
    };
    while_wanted(sender, items(input).try_for_each_concurrent(width.get(), each)).await
}

/// As [`stage`], but sends the results in the order of the input.
///
/// A slow item holds up the results behind it. Up to `width` of them wait; the work on further items waits too.
///
/// # Errors
///
/// The error of `work` that comes first in time. Results that wait, and what else was at work, are dropped.
pub async fn stage_in_order<A, B, E, F>(
    input: mpsc::Receiver<A>,
    width: NonZeroUsize,
    work: impl Fn(A) -> F,
    output: mpsc::Sender<B>,
) -> Result<(), E>
where
    F: Future<Output = Result<B, E>>,
{
    let (line, mut in_order) = mpsc::channel::<oneshot::Receiver<B>>(width.get().min(Semaphore::MAX_PERMITS));
    let work = &work;
    let run = async {
        // Dropped with this block, which is the end for `deliver`.
        let line = &{ line };
        let enter = |item| async move {
            let (sender, result) = oneshot::channel();
            // The receiver lives as long as this future, in which both are.
            let _ = line.send(result).await;
            Ok((item, sender))
        };
        let each = |(item, sender): (A, oneshot::Sender<B>)| async move {
            // As above.
            let _ = sender.send(work(item).await?);
            Ok(())
        };
        items(input).and_then(enter).try_for_each_concurrent(width.get(), each).await
    };
    let deliver = async {
        while let Some(result) = in_order.recv().await {
            // Without a sender its work has failed, and `run` ends the stage; without a receiver `while_wanted` does.
            let Ok(result) = result.await else { break };
            if output.send(result).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let both = async { tokio::try_join!(biased; run, deliver).map(|((), ())| ()) };
    while_wanted(&output, both).await
}

/// Runs `stage` until its end, or that of whoever takes its output.
async fn while_wanted<B, E>(
    output: &mpsc::Sender<B>,
    stage: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    tokio::select! {
        biased;
        () = output.closed() => Ok(()),
        ended = stage => ended,
    }
}

fn items<A, E>(mut input: mpsc::Receiver<A>) -> impl Stream<Item = Result<A, E>> {
    stream::poll_fn(move |context| input.poll_recv(context).map(|item| item.map(Ok)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::sync::mpsc::channel;
    use tokio::time::{Instant, sleep};
    use tokio::{join, try_join};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    async fn work(millis: u64) -> Result<u64, &'static str> {
        sleep(Duration::from_millis(millis)).await;
        if millis == 13 { Err("thirteen") } else { Ok(millis) }
    }

    async fn all<T>(mut output: mpsc::Receiver<T>) -> Vec<T> {
        let mut all = Vec::new();
        while let Some(item) = output.recv().await {
            all.push(item);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_ends_or_that_of_the_input() {
        let start = Instant::now();
        let ((first, input), (last, output)) = (channel(1), channel(1));
        let ended = join!(feed([30, 10, 5, 50], first), stage(input, TWO, work, last), all(output));
        assert_eq!(ended, (Ok::<_, &str>(()), Ok(()), vec![10, 5, 30, 50]));
        assert_eq!(start.elapsed(), Duration::from_millis(65));

        let ((first, input), (last, output)) = (channel(1), channel(1));
        let ended = join!(feed([30, 10, 5, 50], first), stage_in_order(input, TWO, work, last), all(output));
        assert_eq!(ended, (Ok::<_, &str>(()), Ok(()), vec![30, 10, 5, 50]));
        assert_eq!(start.elapsed(), Duration::from_millis(65 + 80), "50 started when 30 was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_end_all_stages_at_once() {
        let start = Instant::now();
        let ((first, input), (middle, middle_input), (last, output)) = (channel(1), channel(1), channel(1));
        let stages = async {
            let second = stage_in_order(middle_input, TWO, work, last);
            try_join!(
                feed([5, 13, 60_000].into_iter().cycle(), first),
                stage(input, TWO, async |item| Ok(item), middle),
                second
            )
        };
        assert_eq!(join!(stages, all(output)), (Err("thirteen"), vec![5]));
        assert_eq!(start.elapsed(), Duration::from_millis(13));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_none_where_nobody_wants_more() {
        let ((first, input), (middle, middle_input), (last, mut output)) =
            (channel(1), channel(1), channel(1));
        let sink = async move { output.recv().await };
        let ended = join!(
            feed::<_, &str>([5].into_iter().cycle(), first),
            stage(input, TWO, work, middle),
            stage_in_order(middle_input, TWO, work, last),
            sink
        );
        assert_eq!(ended, (Ok(()), Ok(()), Ok(()), Some(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_and_memory_are_that_of_widths_and_bounds() {
        let fed = Cell::new(0);
        let ((first, input), (last, output)) = (channel(1), channel(1));
        let feeding = feed::<_, &str>((0..100).inspect(|_| fed.set(fed.get() + 1)), first);
        let mut stages = Box::pin(async { try_join!(feeding, stage(input, TWO, work, last)) });
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut stages).await;
        // One in the output, two that wait for room in it, one in the input, one that waits for room in that.
        assert_eq!(fed.get(), 5);
        drop(output);
        assert!(stages.await.is_ok());

        let (started, fed) = (Cell::new(0), 0..100_u64);
        let ((first, input), (last, _output)) = (channel(1), channel(1));
        let count = |item| {
            started.set(started.get() + 1);
            work(item)
        };
        let stages = async { try_join!(feed(fed, first), stage_in_order(input, ONE, count, last)) };
        let _ = tokio::time::timeout(Duration::from_secs(1), stages).await;
        // One in the output, one that waits for room in it, one in line: `width` + 2 when the output holds one.
        assert_eq!(started.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers_and_cancellation_drops_the_work() {
        let held = Rc::new(());
        let hold = |item: u64| {
            let held = held.clone();
            async move {
                let _held = held;
                assert_ne!(item, 3);
                std::future::pending::<Result<(), ()>>().await
            }
        };
        let run = |items: std::ops::Range<u64>| {
            let ((first, input), (last, _output)) = (channel(1), channel(1));
            async move {
                let _output = _output;
                try_join!(feed(items, first), stage_in_order(input, TWO, hold, last))
            }
        };
        assert!(run(0..3).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
        let broken = std::panic::AssertUnwindSafe(run(3..9)).catch_unwind().await;
        assert!(broken.is_err());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn memory_of_the_largest_width_and_the_futures_are_send() {
        let ((first, input), (middle, middle_input), (last, output)) = (channel(1), channel(1), channel(1));
        let ready = async |item: u32| Ok::<_, ()>(item);
        tokio::spawn(feed::<_, ()>(0..3, first));
        tokio::spawn(stage(input, NonZeroUsize::MAX, ready, middle));
        tokio::spawn(stage_in_order(middle_input, NonZeroUsize::MAX, ready, last));
        assert_eq!(all(output).await, [0, 1, 2]);
    }
}
