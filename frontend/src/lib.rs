//! The lab's page: a client-side rendered Leptos application.
//!
//! It comes as two modules with the same shell, so that a first visit loads little: the lab (home, runs) and the workbench
//! (configuration, studies). `boot.js` loads the one that the address is of.

mod api;
mod app;
mod derived;
mod pages;
mod parts;
mod progress;
mod router;
mod state;
mod stream;

pub use app::{lab, workbench};

/// Shows the page that `pages` has for the address. The other module's pages are not reachable from here, and so not linked.
pub fn start(pages: app::Pages) {
    console_error_panic_hook::set_once();
    leptos::mount::mount_to_body(move || app::app(pages));
}
