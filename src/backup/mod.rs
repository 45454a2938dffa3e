//! The backup journey.
