//! Which keys are meant: databases, globs on bytes, types.
