//! `moslim-lab score`: JSON lines in, class distributions and rewards out.

use crate::cli::ScoreArgs;
use crate::commands::{print_json, read_target, source_folder};
use crate::failure::Failure;
use moslim_engine::run::Scorer;
use moslim_shared::inference::{Pair, Scored};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use serde_json::{Map, Value, json};
use std::io::{BufRead, Read};

/// Lines scored together.
const BATCH: usize = 64;

/// Scores standard input.
///
/// # Errors
/// Bad input names the option or the line; what came before a bad line is scored and written all the same.
pub fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let scorer = Scorer::load(&source_folder(&args.source)?, args.source.device)?;
    let target = args.target.as_deref().map(|text| read_target(text, scorer.objectives())).transpose()?;
    let mut batch: Vec<(usize, Pair)> = Vec::with_capacity(BATCH);
    let mut input = std::io::stdin().lock();
    for n in 0.. {
        let Some(line) = next_line(&mut input).transpose() else { break };
        match read_line(n + 1, line) {
            Ok(None) => {}
            Ok(Some(pair)) => batch.push((n + 1, pair)),
            Err(failure) => {
                flush(&scorer, &mut batch, target.as_ref())?;
                return Err(failure);
            }
        }
        if batch.len() == BATCH {
            flush(&scorer, &mut batch, target.as_ref())?;
        }
    }
    flush(&scorer, &mut batch, target.as_ref())
}

/// Bytes of the longest line: many times what any model reads.
const LONGEST: u64 = 1 << 20;

/// The next line, if there is one.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    if input.take(LONGEST).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == LONGEST && !line.ends_with(b"\n") {
        return Err(std::io::Error::other(format!("is longer than {LONGEST} bytes")));
    }
    String::from_utf8(line).map(Some).map_err(|_| std::io::Error::other("is not valid UTF-8"))
}

/// Prompt and response of a line; none for an empty one.
fn read_line(number: usize, line: std::io::Result<String>) -> Result<Option<Pair>, Failure> {
    let field = format!("line {number}");
    let line = line.map_err(|e| Failure::field(&field, e))?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let pair = serde_json::from_str(&line)
        .map_err(|e| Failure::field(&field, format!("is not of the form {{\"prompt\": \"...\", \"response\": \"...\"}}: {e}")))?;
    Ok(Some(pair))
}

/// Scores what is in `batch`, lines with their numbers, and empties it.
fn flush(scorer: &Scorer, batch: &mut Vec<(usize, Pair)>, target: Option<&Preference>) -> Result<(), Failure> {
    let (lines, pairs): (Vec<usize>, Vec<Pair>) = batch.drain(..).unzip();
    if pairs.is_empty() {
        return Ok(());
    }
    if let Ok(all) = scorer.score(&pairs, target) {
        return all.iter().try_for_each(|scored| print_json(&describe(scorer.objectives(), scored)));
    }
    // One of them is at fault; those before it are scored all the same.
    for (line, pair) in lines.iter().zip(&pairs) {
        let scored = scorer.score(std::slice::from_ref(pair), target);
        let scored = scored.map_err(|e| Failure::field(&format!("line {line}"), format!("cannot be scored: {e:#}")))?;
        scored.iter().try_for_each(|scored| print_json(&describe(scorer.objectives(), scored)))?;
    }
    Ok(())
}

/// A score with objectives by name instead of by position.
fn describe(objectives: &[Objective], scored: &Scored) -> Value {
    let by_name = |values: Vec<Value>| -> Map<String, Value> { objectives.iter().map(|o| o.id.clone()).zip(values).collect() };
    let distributions = by_name(scored.distributions.iter().map(|d| json!(d)).collect());
    let mut value = json!({ "distributions": distributions });
    if let Some(reward) = &scored.reward {
        let contributions = by_name(reward.contributions.iter().map(|c| json!(c)).collect());
        value["reward"] = json!({ "scalar": reward.scalar, "contributions": contributions });
    }
    if let Some(gold) = &scored.gold {
        value["gold"] = by_name(gold.iter().map(|c| json!(c)).collect()).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_and_none_is_endless() {
        let mut input: &[u8] = b"one\ntwo";
        assert_eq!(next_line(&mut input).unwrap().unwrap(), "one\n");
        assert_eq!(next_line(&mut input).unwrap().unwrap(), "two");
        assert!(next_line(&mut input).unwrap().is_none());
        let long = vec![b'x'; (LONGEST + 5) as usize];
        assert!(next_line(&mut long.as_slice()).unwrap_err().to_string().contains("longer than 1048576 bytes"));
        assert!(next_line(&mut &b"\xff\n"[..]).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert!(matches!(read_line(1, Ok("  ".into())), Ok(None)));
        let good = read_line(2, Ok(r#"{"prompt": "p", "response": "r"}"#.into()));
        assert!(matches!(good, Ok(Some(Pair { prompt: p, response: r })) if p == "p" && r == "r"));
        let failure = read_line(3, Ok(r#"{"prompt": "p"}"#.into())).unwrap_err();
        assert_eq!(failure.code(), crate::failure::BAD_INPUT);
        assert!(failure.to_string().starts_with("line 3: "), "{failure}");
    }
}
