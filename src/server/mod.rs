//! A Redis or Valkey server: its address, connections to it, and what it says of itself.
