//! Reading a backup back whole.
