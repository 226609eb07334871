//! The workbench: configuration and studies.

fn main() {
    moslim_frontend::start(moslim_frontend::workbench);
}
