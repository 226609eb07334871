//! `moslim-lab generate`: answers of a trained policy.

use crate::cli::GenerateArgs;
use crate::commands::{print_json, print_line, read_target, source_folder};
use crate::failure::Failure;
use moslim_engine::run::Generator;
use serde_json::json;

/// Prints answers, one per line or all in one document.
///
/// # Errors
/// Bad input names the option; a run that cannot be loaded fails.
pub fn run(args: &GenerateArgs) -> Result<(), Failure> {
    check(args)?;
    let generator = Generator::load(&source_folder(&args.source)?, args.source.device)?;
    let target = read_target(&args.target, generator.objectives())?;
    let responses =
        generator.generate(&args.prompt, &target, args.n, args.temperature, args.top_p, args.max_new_tokens, args.seed)?;
    if args.json {
        let target = target.print(generator.objectives());
        return print_json(&json!({ "prompt": args.prompt, "target": target, "seed": args.seed, "responses": responses }));
    }
    responses.iter().try_for_each(|response| print_line(response))
}

/// Ranges of the options.
fn check(args: &GenerateArgs) -> Result<(), Failure> {
    let range = |ok: bool, field: &str, value: &dyn std::fmt::Display, allowed: &str| {
        if ok { Ok(()) } else { Err(Failure::field(field, format!("is {value}; allowed is {allowed}"))) }
    };
    if args.prompt.trim().is_empty() {
        return Err(Failure::field("prompt", "is empty"));
    }
    range((1..=1000).contains(&args.n), "n", &args.n, "1 to 1000")?;
    range((0.0..=5.0).contains(&args.temperature), "temperature", &args.temperature, "0 to 5")?;
    range(args.top_p > 0.0 && args.top_p <= 1.0, "top-p", &args.top_p, "more than 0, to 1")?;
    range((1..=1024).contains(&args.max_new_tokens), "max-new-tokens", &args.max_new_tokens, "1 to 1024")
}
