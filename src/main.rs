//! The `rdbkeeper` binary.

fn main() {}
