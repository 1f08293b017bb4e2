use std::sync::{Arc, Mutex};

#[tokio::main]
async fn main() {
    let total = Arc::new(Mutex::new(0));
    let added = total.clone();
    let task = tokio::spawn(async move {
        let mut total = added.lock().unwrap();
        *total += 1;
        tokio::task::yield_now().await; // the guard is alive here
        *total += 1;
    });
    task.await.unwrap();
    assert_eq!(*total.lock().unwrap(), 2);
}
