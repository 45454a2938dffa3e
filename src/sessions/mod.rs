//! Sessions that are over leave, and none that could still be used.
//!
//! Web frameworks keep sessions in Redis each in its own way, and leak some of them: keys without TTL, keys whose
//! TTL nobody shortens. A rule of the configuration says which keys are sessions of which framework, and how long
//! they live. Then, for each key:
//!
//! 1. [`stores`] reads what the framework wrote into it, without running anything;
//! 2. [`decide`](mod@decide) weighs rule, facts and time, and says what to do and why: a pure function;
//! 3. the sweep walks the keys, and does it in one step with a check that nothing has changed meanwhile;
//! 4. [`tally`] counts what was found and done, and [`report`] says what a person wants to know before.
//!
//! What never breaks: a session that could still be used is not deleted. What cannot be read is left, and counted.

pub mod decide;
pub mod facts;
pub mod histogram;
pub mod journey;
mod looks;
pub mod observe;
mod prefixes;
pub mod report;
mod sample;
pub mod stores;
mod suggest;
pub mod sweep;
pub mod tally;

pub use self::decide::{Action, Decision, Reason, Verdict, decide};
pub use self::facts::{Expiry, KeyFacts, OwnTimeout, Role, Times, Unreadable, Value};
pub use self::observe::{Found, Observer, Outcome, Seen, Wish};
pub use self::report::Report;
pub use self::tally::Tally;
