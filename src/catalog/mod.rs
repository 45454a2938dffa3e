//! Manifests, IDs, selectors, listing, committing and locks.
