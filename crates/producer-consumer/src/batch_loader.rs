//! Turn many calls for one key each into few calls for many, and hand each caller its own answer.
//!
//! Use it where a query for a hundred keys costs little more than one for one, and the callers know nothing of each other. When
//! nobody waits for an answer use `batcher`; when all keys are known use `batches`.
//!
//! | | |
//! |---|---|
//! | Order | keys are asked for in the order of their first callers; equal keys that wait are asked for once |
//! | Errors | a batch that fails is an error of its own callers, who share it; a key without a value is `None` |
//! | Cancellation | a key that waits and that nobody wants any more is not asked for; a running batch is dropped in its task's next turn when its last caller has gone |
//! | Panics | a panic of the batch is [`LoadError::Lost`] for its own callers; a panic of a value's `clone` is its caller's |
//! | Memory | O(callers): their keys, and the values of a batch until its last caller has taken one; callers that gave up are forgotten when they are more than half |
//! | Backpressure | callers wait: at most `batches` batches run at a time, each for at most `keys` keys |
//! | Clock | none: no caller waits for a batch to fill |
//!
//! While `batches` batches run, what is asked for piles up and goes into the next one together: batches grow with the load, and a
//! lone caller waits for nobody. A batch that runs takes no further callers, so an answer is never older than its question. The
//! idea is that of [dataloader](https://github.com/graphql/dataloader), without its cache.
//!
//! ```
//! use std::{collections::HashMap, convert::Infallible, num::NonZeroUsize};
//! use producer_consumer::BatchLoader;
//!
//! #[tokio::main]
//! async fn main() {
//!     let squares = async |keys: Vec<u32>| Ok::<HashMap<_, _>, Infallible>(keys.iter().map(|key| (*key, key * key)).collect());
//!     let loader = BatchLoader::new(NonZeroUsize::new(100).unwrap(), NonZeroUsize::MIN, squares);
//!     let (two, three) = tokio::join!(loader.load(2), loader.load(3));
//!     assert_eq!((two.unwrap(), three.unwrap()), (Some(4), Some(9)));
//! }
//! ```

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet, coop::consume_budget, yield_now};

/// Why a batch has no answers. Its callers share it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The batch returned this error.
    #[error("the batch failed")]
    Failed(#[source] E),
    /// The batch panicked, or its runtime was shut down: the source tells.
    #[error("the batch did not come to its end")]
    Lost(#[source] JoinError),
    /// The runtime in which the loader was made was shut down, or a method of some key panicked.
    #[error("the loader has stopped")]
    Stopped,
}

/// Collects keys into batches; shared by reference or in an `Arc`. Dropping it stops everything: nobody can be waiting then.
pub struct BatchLoader<K, V, E> {
    /// The loader's task has the other end, and ends with this one.
    calls: mpsc::UnboundedSender<(K, Caller<K, V, E>)>,
}

/// Whoever waits has the other end, and drops it when it gives up. The values of a batch are shared: each clones its own.
type Caller<K, V, E> = oneshot::Sender<Result<Arc<HashMap<K, V>>, Arc<LoadError<E>>>>;

impl<K, V, E> BatchLoader<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// A loader that runs `work` for at most `keys` different keys at once, and at most `batches` times side by side. `work` returns
    /// the values that it found. It must not load from its own loader: all `batches` might wait like that for one more.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime. The batches run as tasks in the runtime in which the loader was made.
    pub fn new<F>(
        keys: NonZeroUsize,
        batches: NonZeroUsize,
        work: impl Fn(Vec<K>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<HashMap<K, V>, E>> + Send + 'static,
    {
        let (calls, mut incoming) = mpsc::unbounded_channel();
        let (work, mut running) = (Arc::new(work), JoinSet::new());
        let mut queue = Queue { waiting: HashMap::new(), order: VecDeque::new(), until_search: 0 };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    // A batch hands out its own answers.
                    Some(_) = running.join_next() => {}
                    call = incoming.recv() => match call {
                        Some((key, caller)) => queue.push(key, caller),
                        None => return,
                    },
                }
                // Whoever is ready to call does so first, and is in the next batch.
                yield_now().await;
                for _ in 0..incoming.len() {
                    let Ok((key, caller)) = incoming.try_recv() else { break };
                    queue.push(key, caller);
                    consume_budget().await;
                }
                while running.len() < batches.get() {
                    let (keys, callers) = queue.next(keys.get());
                    if keys.is_empty() {
                        break;
                    }
                    let work = work.clone();
                    running.spawn(batch(async move { work(keys).await }, callers));
                }
            }
        });
        BatchLoader { calls }
    }

    /// The value of `key`, or `None` when its batch found none.
    pub async fn load(&self, key: K) -> Result<Option<V>, Arc<LoadError<E>>> {
        let (caller, answers) = oneshot::channel();
        // A loader that has stopped drops the caller, which is seen below.
        let _ = self.calls.send((key.clone(), caller));
        let answers = answers.await.unwrap_or_else(|_| Err(Arc::new(LoadError::Stopped)));
        Ok(answers?.get(&key).cloned())
    }
}

/// Calls that are in no batch yet.
struct Queue<K, V, E> {
    waiting: HashMap<K, Vec<Caller<K, V, E>>>,
    /// The keys of `waiting`, in the order of their first callers.
    order: VecDeque<K>,
    /// After how many more calls the callers that gave up are searched for.
    until_search: usize,
}

impl<K: Hash + Eq + Clone, V, E> Queue<K, V, E> {
    fn push(&mut self, key: K, caller: Caller<K, V, E>) {
        if self.until_search == 0 {
            self.waiting.retain(|_, callers| {
                callers.retain(|caller| !caller.is_closed());
                !callers.is_empty()
            });
            self.order.retain(|key| self.waiting.contains_key(key));
            // As many as are left: a search then costs each call a constant share.
            self.until_search = self.waiting.values().map(Vec::len).sum::<usize>().max(16);
        }
        self.until_search -= 1;
        if !self.waiting.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.waiting.entry(key).or_default().push(caller);
    }

    /// The next keys that are still wanted, and all who want them.
    fn next(&mut self, most: usize) -> (Vec<K>, Vec<Caller<K, V, E>>) {
        let (mut keys, mut callers) = (Vec::new(), Vec::new());
        while keys.len() < most {
            let Some(key) = self.order.pop_front() else { break };
            let before = callers.len();
            let waiting = self.waiting.remove(&key).unwrap_or_default();
            callers.extend(waiting.into_iter().filter(|caller| !caller.is_closed()));
            if callers.len() > before {
                keys.push(key);
            }
        }
        (keys, callers)
    }
}

/// Does the work in a task of its own, so that a panic of it is an error, and hands out the answers.
async fn batch<K: Send + 'static, V: Send + 'static, E: Send + 'static>(
    work: impl Future<Output = Result<HashMap<K, V>, E>> + Send + 'static,
    mut callers: Vec<Caller<K, V, E>>,
) {
    let mut task = JoinSet::new();
    task.spawn(work);
    let all_gone = async {
        for caller in &mut callers {
            caller.closed().await;
        }
    };
    let answers = tokio::select! {
        biased;
        () = all_gone => return task.shutdown().await,
        Some(ended) = task.join_next() => match ended {
            Ok(Ok(found)) => Ok(Arc::new(found)),
            Ok(Err(error)) => Err(Arc::new(LoadError::Failed(error))),
            Err(lost) => Err(Arc::new(LoadError::Lost(lost))),
        },
    };
    for caller in callers {
        // It may have given up just now.
        let _ = caller.send(answers.clone());
        consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::join;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    const MS: Duration = Duration::from_millis(1);

    type Loader = BatchLoader<u32, u32, String>;
    type Log = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Doubles in 10 ms what is below 100, fails with a 100, panics with a 101. The log says what was asked for.
    fn doubling(keys: NonZeroUsize, batches: NonZeroUsize) -> (Loader, Log) {
        let log = Log::default();
        let own = log.clone();
        let work = move |keys: Vec<u32>| {
            own.lock().unwrap().push(keys.clone());
            async move {
                sleep(10 * MS).await;
                match keys.iter().max() {
                    Some(100) => Err("refused".to_string()),
                    // Not `panic!`: the message would be printed though the panic is expected.
                    Some(101) => resume_unwind(Box::new("broken")),
                    _ => Ok(keys.into_iter().filter(|key| *key < 50).map(|key| (key, 2 * key)).collect()),
                }
            }
        };
        (BatchLoader::new(keys, batches, work), log)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_first_callers_and_equal_keys_share() {
        let (loader, log) = doubling(TWO, ONE);
        let load = async |key| loader.load(key).await.unwrap();
        let late = async { (sleep(5 * MS).await, load(3).await).1 };
        let answers = join!(load(3), load(1), load(3), load(2), load(1), late);
        assert_eq!(answers, (Some(6), Some(2), Some(6), Some(4), Some(2), Some(6)));
        // The last one asked when the batch with its key had begun.
        assert_eq!(*log.lock().unwrap(), [[3, 1], [2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_those_of_one_batch_and_a_missing_value_is_none() {
        let (loader, _) = doubling(TWO, ONE);
        let answers = join!(loader.load(1), loader.load(100), loader.load(2), loader.load(70));
        let (Err(one), Err(other)) = (answers.0, answers.1) else { panic!("their batch failed") };
        assert!(Arc::ptr_eq(&one, &other) && matches!(&*one, LoadError::Failed(error) if error == "refused"));
        assert_eq!((answers.2.unwrap(), answers.3.unwrap()), (Some(4), None));
        assert_eq!(loader.load(3).await.unwrap(), Some(6));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_errors_of_one_batch() {
        let (loader, _) = doubling(ONE, ONE);
        let answers = join!(loader.load(101), loader.load(2));
        assert!(
            matches!(&*answers.0.unwrap_err(), LoadError::Lost(lost) if lost.to_string().contains("broken"))
        );
        assert_eq!(answers.1.unwrap(), Some(4));
        let early = Loader::new(ONE, ONE, |_| -> std::future::Ready<_> { resume_unwind(Box::new(1)) });
        assert!(matches!(&*early.load(1).await.unwrap_err(), LoadError::Lost(lost) if lost.is_panic()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_takes_the_key_out_and_drops_a_batch_that_nobody_waits_for() {
        let (loader, log) = doubling(TWO, ONE);
        let start = Instant::now();
        let impatient = |key| timeout(5 * MS, loader.load(key));
        let patient = async { (sleep(MS).await, loader.load(5).await).1 };
        let answers = join!(impatient(1), impatient(2), impatient(3), impatient(5), patient);
        assert!(answers.0.is_err() && answers.3.is_err());
        assert_eq!(answers.4.unwrap(), Some(10));
        // The first batch was dropped at 5 ms, and the second began.
        assert_eq!(start.elapsed(), 15 * MS);
        assert_eq!(*log.lock().unwrap(), [vec![1, 2], vec![5]]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_not_taken_by_callers_that_gave_up() {
        let never = |_| std::future::pending::<Result<HashMap<(u32, Arc<()>), ()>, ()>>();
        let (loader, alive) = (BatchLoader::new(TEN, ONE, never), Arc::new(()));
        // The first one's batch runs, and the second one waits for the next.
        let patient = async { join!(loader.load((0, alive.clone())), loader.load((1, alive.clone()))) };
        let storm = async {
            yield_now().await;
            for key in 2..10_000 {
                assert!(loader.load((key, alive.clone())).now_or_never().is_none());
                yield_now().await;
                yield_now().await;
                assert!(Arc::strong_count(&alive) < 50, "{} after {key}", Arc::strong_count(&alive));
            }
        };
        tokio::select! { _ = patient => unreachable!("its batch never ends"), () = storm => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_bounds_the_batches_and_their_keys() {
        let (loader, log) = doubling(TEN, TWO);
        let start = Instant::now();
        let answers = join_all((0..45).map(|key| loader.load(key))).await;
        assert!(answers.into_iter().map(Result::unwrap).eq((0..45).map(|key| Some(2 * key))));
        let sizes: Vec<_> = log.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!((sizes, start.elapsed()), (vec![10, 10, 10, 10, 5], 30 * MS));
    }
}
