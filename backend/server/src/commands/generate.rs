//! `moslim-lab generate`: answers of a trained policy.

use crate::cli::GenerateArgs;
use crate::commands::{print_json, print_line, read_target, source_folder};
use crate::failure::Failure;
use moslim_engine::progress::Stop;
use moslim_engine::run::Generator;
use moslim_shared::inference::{GenerateEvent, GenerateRequest, Source};
use serde_json::json;

/// Prints answers, one per line or all in one document.
///
/// # Errors
/// Bad input names the option; a run that cannot be loaded fails.
pub fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let own = GenerateRequest::default();
    let mut request = GenerateRequest {
        prompt: args.prompt.clone(),
        target: args.target.clone(),
        source: if args.start { Source::Start } else { args.who },
        n: args.n,
        best_of: args.best_of,
        temperature: args.temperature.unwrap_or(own.temperature),
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens.unwrap_or(own.max_new_tokens),
        seed: args.seed,
    };
    if let Some(problem) = request.problems().into_iter().next() {
        return Err(Failure::field(&problem.field.replace('_', "-"), problem.message));
    }
    let generator = Generator::load(&source_folder(&args.source)?, args.source.device)?;
    let (temperature, most) = generator.measured();
    (request.temperature, request.max_new_tokens) =
        (args.temperature.unwrap_or(temperature), args.max_new_tokens.unwrap_or(most));
    let target = read_target(&args.target, generator.objectives())?;
    if !args.json {
        return generator.texts(&request)?.iter().try_for_each(|response| print_line(response));
    }
    let (mut read, mut responses, mut scores) = (String::new(), Vec::new(), Vec::new());
    generator.generate(&request, &Stop::default(), &mut |event| match event {
        GenerateEvent::Prompt { text, .. } => read = text,
        GenerateEvent::Answer { text, scored, .. } => {
            responses.push(text);
            scores.push(scored);
        }
        _ => {}
    })?;
    let target = target.print(generator.objectives());
    print_json(&json!({
        "prompt": args.prompt, "read": read, "target": target, "seed": args.seed, "responses": responses, "scores": scores,
    }))
}
