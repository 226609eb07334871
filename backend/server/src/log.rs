//! What is logged and said, by every command: on standard error, for standard output holds nothing but what a command answers.
//!
//! A terminal may go away, a pipe be closed and a disk be full while hours of training go on: that nobody hears it ends nothing.
//! So whatever goes to standard error goes by here, and not by `eprintln!`, which panics then.

use crate::failure::printable;
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Shows what is logged from here on: what `RUST_LOG` asks for, else `usual`.
pub fn show(usual: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal();
    let shown = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // What it would say of a line that it could not write would go to the same place, by a call that panics.
    shown.log_internal_errors(false).init();
}

/// Says a line to whoever has started a command. What a file or a request has put into it does nothing to a terminal.
pub fn say(line: &str) {
    let line = printable(line) + "\n";
    // In one piece: other processes may write to the same place.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
