//! The pages, each with the pieces that only it has. A page imports parts and `state`, never another page; what two pages
//! need is a part, or, where it asks for something or knows a run, `carry` or `way`.

pub mod carry;
pub mod compare;
pub mod configure;
pub mod data;
pub mod home;
pub mod learn;
pub mod models;
pub mod not_found;
pub mod playground;
pub mod run;
pub mod studies;
pub mod study;
pub mod way;
