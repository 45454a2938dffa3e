//! What a backup does to the server and the host that it works on: forks, the server's settings, processor time.

mod compression;
mod guard;
mod nice;
