//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/no_origin_check.rs"]
mod no_origin_check;

#[tokio::test(start_paused = true)]
async fn a_foreign_page_reads_in_the_users_name_where_nobody_checks() {
    let seen = no_origin_check::page("https://evil.example", no_origin_check::wrong).await;
    assert_eq!(seen.unwrap(), "alice has 1200 EUR");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_page_gets_403_and_the_own_page_its_answer() {
    let seen = no_origin_check::page("https://evil.example", no_origin_check::right).await;
    assert_eq!(seen.unwrap_err().to_string(), "HTTP error: 403 Forbidden");
    let seen = no_origin_check::page("https://bank.example", no_origin_check::right).await;
    assert_eq!(seen.unwrap(), "alice has 1200 EUR");
}
