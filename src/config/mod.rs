//! The configuration file: its shape, where it is looked for, secrets.
