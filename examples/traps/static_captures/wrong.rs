#[tokio::main]
async fn main() {
    let names = vec!["anna", "ben"];
    let task = tokio::spawn(async {
        names.len() // borrows what belongs to main
    });
    assert_eq!(task.await.unwrap(), 2);
    assert_eq!(names.len(), 2);
}
