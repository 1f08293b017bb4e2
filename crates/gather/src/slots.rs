//! Keep up to n futures running in slots that are used again, and poll only those that were woken.
//!
//! This is what `map_concurrent` and `map_ordered` are made of; use it for a bounded loop that neither of them fits. All
//! futures run on the caller's task: they may borrow, and they need not be `Send`. `FuturesUnordered` needs no limit but an
//! allocation for each future.
//!
//! | | |
//! |---|---|
//! | Order | futures start in the order in which `next` gives them and end in any order, each with its number; whoever was woken first is polled first |
//! | Errors | outputs are passed on as they are: a `Result` is a value like any other |
//! | Cancellation | dropping the `Slots` drops every future in them; nothing is spawned |
//! | Panics | a future's panic is the panic of `poll`; the other futures stay where they are, to be dropped with the `Slots` |
//! | Memory | O(limit): a box and a waker for each slot, made at its first use; nothing for each future |
//! | Backpressure | `next` is asked only while a slot is free |
//! | Clock | none of its own |
//!
//! A turn ends when tokio's cooperative budget is spent, so the other tasks of the runtime get theirs however many futures
//! are ready.
//!
//! ```
//! use std::{future::poll_fn, num::NonZeroUsize};
//! use gather::Slots;
//!
//! #[tokio::main]
//! async fn main() {
//!     let mut slots = Slots::new(const { NonZeroUsize::new(2).unwrap() });
//!     let (mut numbers, mut sum) = (1..=4, 0);
//!     let mut next = || numbers.next().map(async |n| n * n);
//!     poll_fn(|context| slots.poll(context, &mut next, |_, square| sum += square)).await;
//!     assert_eq!(sum, 1 + 4 + 9 + 16);
//! }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::task::coop::poll_proceed;

/// So many futures in a row that are ready at once run in one slot, as one operation of the budget, before the next slot.
const READY_IN_A_ROW: usize = 8;

/// A fixed number of places for futures of one type, driven by [`poll`](Self::poll).
pub struct Slots<F> {
    limit: usize,
    slots: Vec<Slot<F>>,
    empty: Vec<usize>,
    due: VecDeque<usize>,
    started: usize,
    woken: Arc<Mutex<Woken>>,
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    number: usize,
    waker: Waker,
}

impl<F: Future> Slots<F> {
    /// At most `limit` futures will run at a time. No slot is made before it is needed.
    pub fn new(limit: NonZeroUsize) -> Self {
        let (slots, empty, due) = (Vec::new(), Vec::new(), VecDeque::new());
        Slots { limit: limit.get(), slots, empty, due, started: 0, woken: Arc::default() }
    }

    /// Starts what `next` gives while a slot is free, and passes the number (from 0) and the output of each to `finish`.
    ///
    /// It is ready when nothing runs and `next` has nothing for now; it may be polled again when there is more.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut() -> Option<F>,
        mut finish: impl FnMut(usize, F::Output),
    ) -> Poll<()> {
        let mut more = true;
        loop {
            if self.due.is_empty() && more {
                let slot = self.free_slot();
                self.due.extend(slot);
            }
            // Only now: whoever is due has been polled before a slot that was woken once more.
            if self.due.is_empty() {
                self.take_woken(context);
            }
            let Some(&index) = self.due.front() else {
                return if self.empty.len() == self.slots.len() { Poll::Ready(()) } else { Poll::Pending };
            };
            ready!(poll_proceed(context)).made_progress();
            self.due.pop_front();
            more = self.visit(index, &mut next, &mut finish);
        }
    }

    fn free_slot(&mut self) -> Option<usize> {
        let index = self.slots.len();
        if self.empty.is_empty() && index < self.limit {
            lock(&self.woken).is_woken.push(false);
            let waker = Waker::from(Arc::new(SlotWaker { index, woken: self.woken.clone() }));
            self.slots.push(Slot { future: Box::pin(None), number: 0, waker });
            return Some(index);
        }
        self.empty.pop()
    }

    /// Polls the future in a slot, and each that takes its place. Returns whether there may be more to start.
    fn visit(
        &mut self,
        index: usize,
        next: &mut impl FnMut() -> Option<F>,
        finish: &mut impl FnMut(usize, F::Output),
    ) -> bool {
        let slot = &mut self.slots[index];
        for _ in 0..=READY_IN_A_ROW {
            if let Some(future) = slot.future.as_mut().as_pin_mut() {
                let mut context = Context::from_waker(&slot.waker);
                let Poll::Ready(output) = future.poll(&mut context) else { return true };
                slot.future.set(None);
                finish(slot.number, output);
            }
            let Some(future) = next() else {
                self.empty.push(index);
                return false;
            };
            slot.future.set(Some(future));
            slot.number = self.started;
            self.started += 1;
        }
        slot.waker.wake_by_ref();
        true
    }

    /// Makes those slots due that were woken, and has this task woken for the next.
    fn take_woken(&mut self, context: &Context<'_>) {
        let task = Some(context.waker().clone());
        let _dropped_after_unlocking = {
            let woken = &mut *lock(&self.woken);
            for index in woken.slots.drain(..) {
                woken.is_woken[index] = false;
                // A waker may be used after the end of its future, and then the slot may be empty.
                if self.slots[index].future.is_some() {
                    self.due.push_back(index);
                }
            }
            mem::replace(&mut woken.task, task)
        };
    }
}

/// What other threads touch, under one lock, so that no wake-up falls between two steps.
#[derive(Default)]
struct Woken {
    slots: Vec<usize>,
    is_woken: Vec<bool>,
    /// Is woken with the first of `slots`, and finds the others in the same turn.
    task: Option<Waker>,
}

struct SlotWaker {
    index: usize,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        let task = {
            let woken = &mut *lock(&self.woken);
            if mem::replace(&mut woken.is_woken[self.index], true) {
                return;
            }
            woken.slots.push(self.index);
            woken.task.take()
        };
        // Not under the lock: what a task does when it is woken is its own business.
        if let Some(task) = task {
            task.wake();
        }
    }
}

fn lock(woken: &Mutex<Woken>) -> MutexGuard<'_, Woken> {
    // Nothing panics while it holds the lock, so there is no half-made change to find.
    woken.lock().unwrap_or_else(PoisonError::into_inner)
}
