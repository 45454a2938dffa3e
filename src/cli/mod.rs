//! Commands, arguments and rendering.
