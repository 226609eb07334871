//! What is logged, by every command: on standard error, for standard output holds nothing but what a command answers.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Shows what is logged from here on: what `RUST_LOG` asks for, else `usual`.
pub fn show(usual: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
