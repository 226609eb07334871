//! `moslim-lab bench`: how fast this machine trains.

use crate::cli::BenchArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use moslim_engine::bench::{SIZES, run as measure};

/// Measures and prints.
///
/// # Errors
/// When a size is unknown or the result cannot be written out.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let known: Vec<&str> = SIZES.iter().map(|s| s.name).collect();
    let names: Vec<&str> = args.sizes.split(',').map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|n| !known.contains(n)) {
        return Err(Failure::field("sizes", format!("unknown size \"{unknown}\"; known are {}", known.join(", "))));
    }
    let report = measure(&names, args.repetitions.max(1), |next| eprintln!("Measuring {next} ..."))?;
    if args.json {
        return print_json(&report);
    }
    print_line(&format!("{} threads, matrix products {:.0} GFLOP/s; medians", report.threads, report.gemm_peak_gflops))?;
    print_line("size    what                seconds   tokens/s   of peak")?;
    for size in &report.sizes {
        let figures = [
            ("forward", Some(&size.forward)),
            ("training step", Some(&size.training_step)),
            ("reward-model step", Some(&size.reward_model_step)),
            ("generation", Some(&size.generation)),
            ("RLOO iteration", size.iteration.as_ref()),
        ];
        for (what, figure) in figures {
            if let Some(f) = figure {
                let share = f.share_of_peak * 100.0;
                print_line(&format!(
                    "{:<7} {what:<18} {:>8.4} {:>10.0} {share:>7.0} %",
                    size.size, f.median, f.tokens_per_second
                ))?;
            }
        }
        print_line(&format!("{:<7} {} parameters, at most {} MiB", size.size, size.parameters, size.peak_memory_mib))?;
    }
    Ok(())
}
