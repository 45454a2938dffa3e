//! What happens to bytes between a source and a storage, and on their way back.
