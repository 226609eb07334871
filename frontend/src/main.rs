//! The lab's page: a client-side rendered Leptos application.

mod api;
mod app;
mod charts;
mod derived;
mod json;
mod pages;
mod parts;
mod progress;
mod router;
mod state;
mod stream;

fn main() {
    console_error_panic_hook::set_once();
    leptos::mount::mount_to_body(app::app);
}
