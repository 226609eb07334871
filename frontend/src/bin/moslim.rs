//! The lab: home, and the page of a run.

fn main() {
    moslim_frontend::start(moslim_frontend::lab);
}
