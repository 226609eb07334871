//! Tells cargo when the embedded page changed.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=migrations");
    // Debug builds read the page at run time, and cargo takes a missing folder for a changed one: without this condition
    // every build before the first build of the page would compile this crate again.
    let embeds = std::env::var("PROFILE").is_ok_and(|profile| profile != "debug");
    if embeds || Path::new("../../dist").exists() {
        println!("cargo::rerun-if-changed=../../dist");
    }
}
