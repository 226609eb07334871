//! `moslim-lab devices`: what can be computed on, and what would be chosen.

use crate::cli::DevicesArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;

/// Prints the devices.
///
/// # Errors
/// When they cannot be written out.
pub fn run(args: &DevicesArgs) -> Result<(), Failure> {
    let devices = moslim_engine::run::devices();
    if args.json {
        return print_json(&devices);
    }
    for d in &devices {
        let mark = if d.chosen { "*" } else { " " };
        let available = if d.available { "available" } else { "not available" };
        print_line(&format!("{mark} {:<5} {available:<14} {} ({})", d.device, d.name, d.reason))?;
    }
    print_line("* is what --device auto takes")
}
