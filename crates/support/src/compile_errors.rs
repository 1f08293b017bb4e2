//! Mistakes that the compiler catches: each is a doctest that must not compile, beside its twin, which must.
//!
//! The code stands in `examples/traps`, from where the book prints it.

/// A value that is not `Send`, alive across an await in a spawned task.
///
#[doc = concat!("```compile_fail,E0277\n", include_str!("../../../examples/traps/non_send_across_await/wrong.rs"), "```")]
///
#[doc = concat!("```\n", include_str!("../../../examples/traps/non_send_across_await/right.rs"), "```")]
pub struct NonSendAcrossAwait;

/// A spawned task that borrows from its caller.
///
#[doc = concat!("```compile_fail,E0373\n", include_str!("../../../examples/traps/static_captures/wrong.rs"), "```")]
///
#[doc = concat!("```\n", include_str!("../../../examples/traps/static_captures/right.rs"), "```")]
pub struct StaticCaptures;
