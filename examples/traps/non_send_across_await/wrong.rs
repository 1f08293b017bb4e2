use std::rc::Rc;

#[tokio::main]
async fn main() {
    let task = tokio::spawn(async {
        let name = Rc::new(String::from("anna"));
        tokio::task::yield_now().await; // `name` is used after it, so it is kept
        name.len()
    });
    assert_eq!(task.await.unwrap(), 4);
}
