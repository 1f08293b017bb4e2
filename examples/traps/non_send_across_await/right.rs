use std::rc::Rc;
use std::sync::Arc;
use tokio::task::{LocalSet, spawn_local, yield_now};

#[tokio::main]
async fn main() {
    // A type that may move between threads;
    let shared = tokio::spawn(async {
        let name = Arc::new(String::from("anna"));
        yield_now().await;
        name.len()
    });
    // or a value whose block ends before the await: `drop(name)` is enough too;
    let ended = tokio::spawn(async {
        let length = { Rc::new(String::from("anna")).len() };
        yield_now().await;
        length
    });
    // or a task that stays on its thread.
    let set = LocalSet::new();
    let local = set.run_until(async {
        let task = spawn_local(async {
            let name = Rc::new(String::from("anna"));
            yield_now().await;
            name.len()
        });
        task.await.unwrap()
    });
    assert_eq!((shared.await.unwrap(), ended.await.unwrap(), local.await), (4, 4, 4));
}
