//! One file a page.

pub mod configure;
pub mod fields;
pub mod home;
pub mod live;
pub mod not_found;
pub mod studies;
pub mod study;
