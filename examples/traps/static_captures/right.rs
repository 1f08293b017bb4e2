use std::sync::Arc;

#[tokio::main]
async fn main() {
    // The task owns what it uses: a clone, or an `Arc` where a clone is dear.
    let names = Arc::new(vec!["anna", "ben"]);
    let shared = names.clone();
    let task = tokio::spawn(async move { shared.len() });
    assert_eq!(task.await.unwrap(), 2);

    // Nothing has to be `'static` that stays in the caller's task: `join!` borrows, and so does `gather`.
    let (first, all) = tokio::join!(async { names[0] }, async { names.len() });
    assert_eq!((first, all), ("anna", 2));
}
