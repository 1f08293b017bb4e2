//! `host_pacing`: a turn is dropped at every suspension point, and the next one is as early and no earlier.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use scraping::{Answer, HostPace};
use support::sweep::sweep;
use support::sweep::{Ended, Scene};
use tokio::time::{Instant, sleep};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn cancellation_of_a_turn_at_every_point() {
    let report = sweep(|_| {
        let pace = Rc::new(RefCell::new(HostPace::new(ms(100), ms(1000))));
        let after = pace.clone();
        let call = async move {
            let mut own = pace.borrow().clone();
            for _ in 0..3 {
                own.turn().await;
                *pace.borrow_mut() = own.clone();
                own.ended(Instant::now(), Answer::Busy(Some(ms(70))));
            }
            own
        };
        Scene::new(call).check(move |ended| {
            if let Ended::Returned(pace) = ended {
                assert_eq!(pace.delay(), ms(800));
            }
            assert!(after.borrow().ready() <= Some(Instant::now()), "nobody has a turn an hour later");
        })
    });
    assert!(report.points >= 6, "{}", report.points);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any answers: two turns are never nearer than the delay and the pause say, and the delay stays within its bounds.
    #[test]
    fn clock_of_any_answers(answers in prop::collection::vec((0..4_u8, 0..3000_u64, 0..300_u64), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut pace = HostPace::new(ms(100), ms(2000));
            let mut last: Option<(Instant, Duration)> = None;
            for (kind, asked, takes) in answers {
                let began = pace.turn().await;
                if let Some((last, apart)) = last {
                    assert!(began - last >= apart, "{:?} instead of {apart:?}", began - last);
                }
                sleep(ms(takes)).await;
                let pause = ms(asked).min(ms(2000));
                let (answer, apart) = match kind {
                    0 => (Answer::Well(ms(0)), ms(0)),
                    1 => (Answer::Well(ms(asked)), pause),
                    2 => (Answer::Failed, ms(200)),
                    _ => (Answer::Busy(Some(ms(asked))), pause + ms(takes)),
                };
                pace.ended(began, answer);
                assert!((ms(100)..=ms(2000)).contains(&pace.delay()));
                last = Some((began, apart.max(pace.delay())));
            }
        });
    }
}
