//! The model card: what can be asked for and how, what was measured, and what it was made from.

use super::super::opened::Opened;
use super::{Form, licence};
use crate::evaluate::answer::Route;
use moslim_shared::config::{TargetWording, WishPlace};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::RunSummary;
use std::fmt::Write;

/// `README.md` of an export called `name` of the `policy`th policy.
pub fn card(opened: &Opened, route: &Route, summary: Option<&RunSummary>, (form, name, policy): (Form, &str, usize)) -> String {
    let (config, base) = (&opened.config, opened.base.as_ref());
    let base_name = base.map(|(known, _)| known.hub_id().map_or_else(|| known.name.clone(), |(id, _)| id.to_string()));
    let licence = base.map_or(Some("apache-2.0".to_string()), |(known, _)| licence(known));
    let mut out = String::from("---\n");
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("license: {}", licence.as_deref().unwrap_or("other")));
    if let Some(base) = &base_name {
        line(format!("base_model: {base}"));
    }
    line(format!("library_name: {}", if form == Form::Adapter { "peft" } else { "transformers" }));
    line("tags: [moslim, multi-objective, steerable]\n---\n".into());
    line(format!("# {name}\n"));
    let what = match &base_name {
        Some(base) => format!("{base}, aligned to several graded objectives at once"),
        None => "A small model trained from nothing in a world of its own, aligned to several graded objectives at once".into(),
    };
    let kind = config.method.kind;
    let by = if kind.optimises() {
        format!("{}, optimised with {}", kind.title(), config.policy.optimizer.title())
    } else {
        kind.title().into()
    };
    line(format!("{what}. Made with MOSLIM Lab by {by}; the rewards are of one model that grades answers in classes.\n"));
    line(asking(opened, route, form, policy));
    line(objectives(&opened.objectives));
    match summary {
        Some(summary) => line(measured(summary, &opened.objectives)),
        None => line("## What was measured\n\nNothing: the run was exported before it was evaluated.\n".into()),
    }
    line("## What it was made from\n".into());
    line(format!("- Task: {}, seed {}.", opened.task, config.seed));
    match base {
        Some((known, _)) => {
            let matrices = config.base.targets.iter().map(|matrix| matrix.id()).collect::<Vec<_>>().join(", ");
            let tags = if config.base.added_tokens { "; a tag for every class was added to its vocabulary" } else { "" };
            line(format!(
                "- Base model: {} ({} weights, frozen under adapters of rank {} on {matrices}{tags}).",
                known.name, known.weights, config.base.rank
            ));
            for file in &known.files {
                let file_name = file.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
                line(format!("  - `{file_name}`, SHA-256 {}", file.sha256));
            }
            line(match licence {
                Some(licence) => format!("- Licence of the base model: {licence}. It holds for this one, too."),
                None => "- The base model's files name no licence; its own terms hold for this one, too.".into(),
            });
        }
        None => line("- Every weight was trained by the run itself, on texts that the lab makes.".into()),
    }
    if form != Form::Gguf {
        line("- `reward/`: the reward model, with `reward_model.py`, which loads it and says what its numbers mean.".into());
    }
    out
}

/// How wishes are said.
fn asking(opened: &Opened, route: &Route, form: Form, policy: usize) -> String {
    let mut out = String::from("## How to ask\n\n");
    let steered = opened.config.steered(&opened.objectives);
    let example: Vec<(usize, usize)> = steered.iter().take(2).map(|&i| (i, opened.objectives[i].best_class())).collect();
    let (chat, added) = (opened.base.is_some(), !opened.tokenizer.added().is_empty());
    let below = opened.tokenizer.wishes() == WishPlace::Question;
    let place = if below { "below the question" } else { "in the system message" };
    let tags: Vec<String> = example
        .iter()
        .map(|&(i, class)| {
            let o = &opened.objectives[i];
            if chat && !added { format!("{}={}/{}", o.id, class, o.class_count() - 1) } else { o.tag(class) }
        })
        .collect();
    let wish = match route {
        Route::Tags => {
            let _ = writeln!(
                out,
                "Say {place} which classes are wanted, any number of objectives in any order. What is not named is left to the model.\n"
            );
            let words: Vec<String> = example.iter().map(|&(i, class)| opened.objectives[i].said(class, 0)).collect();
            // Only what it was trained on: told in another way, it does not know what is wanted.
            let words = format!("In words: `{}`", words.join(" "));
            let ways = match opened.config.targets.wording {
                TargetWording::Tags => None,
                TargetWording::Words => Some(words),
                TargetWording::Mixed => Some(format!("{words}; as tags: `{}`", tags.join(if added { "" } else { " " }))),
            };
            if let Some(ways) = ways.filter(|_| chat) {
                let _ = writeln!(out, "{ways}\n");
            }
            if added {
                out += "Every tag is one special token: a program has to read special tokens in the wish, and none in what people write.\n\n";
            }
            let mut asked = Preference::none(opened.objectives.len());
            example.iter().for_each(|&(i, class)| asked.0[i] = Some(class));
            opened.tokenizer.wish(&asked).unwrap_or_else(|| tags.concat())
        }
        Route::Scores { mean, std } => {
            let _ = writeln!(
                out,
                "Say {place} one number for each objective, in their order: the class wanted, standardised, or `.` for none.\n"
            );
            for (o, (mean, std)) in opened.objectives.iter().zip(mean.iter().zip(std)) {
                let _ = writeln!(out, "- {}: (class - {mean:.3}) / {std:.3}", o.id);
            }
            out.push('\n');
            let z = |i: usize| match example.iter().find(|(j, _)| *j == i) {
                Some((_, class)) => format!("{:.1}", (*class as f64 - mean[i]) / std[i].max(1e-3)),
                None => ".".into(),
            };
            (0..opened.objectives.len()).map(z).collect::<Vec<_>>().join(" ")
        }
        Route::Nearest { mixed, weights, .. } => {
            let own = if *mixed { "one of several whose weights are mixed" } else { "one of several, for one set of weights" };
            let _ = writeln!(out, "This policy is {own}; it reads no wish.\n");
            if let Some(weights) = weights.get(policy).filter(|_| !*mixed) {
                let named: Vec<String> = opened.objectives.iter().zip(weights).map(|(o, w)| format!("{} {w:.2}", o.id)).collect();
                let _ = writeln!(out, "Its weights: {}.\n", named.join(", "));
            }
            String::new()
        }
        Route::Untagged | Route::BestOf(_) => {
            out += "It reads no wish.\n\n";
            String::new()
        }
    };
    if !wish.is_empty() {
        let _ = writeln!(out, "For example: `{}`\n", wish.replace('\n', "`, and on the next line `"));
    }
    // Within quotes of Python, whose escapes JSON has, too.
    let quoted = serde_json::to_string(&wish).unwrap_or_default();
    let within = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"')).unwrap_or_default();
    let (message, after) = match within {
        "" => (String::new(), String::new()),
        wish if below => (String::new(), format!("\\n\\n{wish}")),
        wish => (format!("{{\"role\": \"system\", \"content\": \"{wish}\"}},\n            "), String::new()),
    };
    let load = match (form, &opened.base) {
        (Form::Gguf, _) => {
            out += "Any program that reads GGUF files can load `model.gguf`; say the wish ";
            out += if below { "below the question, after an empty line.\n" } else { "as its system message.\n" };
            return out;
        }
        (Form::Adapter, Some((known, _))) if !known.path.is_dir() => {
            let file = known.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            format!(
                "from peft import PeftModel\nbase = AutoModelForCausalLM.from_pretrained(BASE_FOLDER, gguf_file=\"{file}\")\n\
                 model = PeftModel.from_pretrained(base, FOLDER)"
            )
        }
        (Form::Adapter, _) => {
            "from peft import AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained(FOLDER)".into()
        }
        _ => "model = AutoModelForCausalLM.from_pretrained(FOLDER)".to_string(),
    };
    let _ = writeln!(
        out,
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\ntokenizer = AutoTokenizer.from_pretrained(FOLDER)\n{load}\n\
         messages = [{message}{{\"role\": \"user\", \"content\": \"How do I make tea?{after}\"}}]\n\
         prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors=\"pt\")\n\
         answer = model.generate(prompt, max_new_tokens=96, do_sample=True, temperature={})\n\
         print(tokenizer.decode(answer[0, prompt.shape[1]:], skip_special_tokens=True))\n```\n",
        opened.config.evaluation.temperature
    );
    out
}

fn objectives(all: &[Objective]) -> String {
    let mut out = String::from("## Objectives\n\n| objective | what it grades | classes, from 0 |\n|---|---|---|\n");
    for o in all {
        let _ = writeln!(out, "| `{}` | {} | {} |", o.id, o.description, o.classes.join(", "));
    }
    out
}

fn measured(summary: &RunSummary, objectives: &[Objective]) -> String {
    let control = &summary.control;
    let mut out = String::from(
        "## What was measured\n\nOn held-out questions: the share of answers in the class asked for (hit rate), and the rank correlation of \
         asked and achieved. Before: the model that optimisation began with, asked likewise.\n\n\
         | objective | hit rate | before | by chance | rank correlation |\n|---|---|---|---|---|\n",
    );
    for (head, before) in control.policy.heads.iter().zip(&control.sft.heads) {
        let _ = writeln!(
            out,
            "| `{}` | {:.2} | {:.2} | {:.2} | {:.2} |",
            head.objective, head.hit_rate, before.hit_rate, head.chance, head.spearman
        );
    }
    let _ = writeln!(
        out,
        "\nAll classes asked for together met: {:.2}. Distinct answers: {:.2}. Reward model, quadratic weighted kappa: {}.",
        control.policy.joint_hit_rate,
        control.policy.diversity.unique,
        summary
            .reward_model
            .heads
            .iter()
            .zip(objectives)
            .map(|(h, o)| format!("{} {:.2}", o.id, h.qwk))
            .collect::<Vec<_>>()
            .join(", ")
    );
    out
}
