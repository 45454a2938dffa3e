//! The restore journey.
