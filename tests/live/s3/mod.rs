//! Off-site on a real S3 server: what it promises when everything works, and when nothing does.

mod harness;
