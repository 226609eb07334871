//! Tells cargo when the embedded page changed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/index.sql");
    // While the folder is missing, cargo takes it for changed and runs this again: the page is found once it is built.
    println!("cargo::rerun-if-changed=../../dist");
}
