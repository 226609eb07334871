//! Ctrl-C and, where there is such a thing, the system's request to end.

use std::io;

/// What a signal wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A person wants this to end (Ctrl-C).
    Cancel,
    /// The system wants the process to go.
    End,
    /// What is read from files should be read anew; a terminal that goes away says the same. What trains goes on.
    Reload,
}

/// Listens for the wish that this process ends. While it lives, a signal no longer ends the process by itself.
#[cfg(unix)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on; needs a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Cancel,
            _ = self.terminate.recv() => Wish::End,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

/// Listens for the wish that this process ends.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens from the first wait on.
    ///
    /// # Errors
    /// Never; other systems can refuse.
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        let _ = tokio::signal::ctrl_c().await;
        Wish::Cancel
    }
}

impl Signals {
    /// Waits for the next one that wishes an end.
    pub async fn end(&mut self) -> Wish {
        loop {
            match self.next().await {
                Wish::Reload => {}
                end => return end,
            }
        }
    }
}
