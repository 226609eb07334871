//! `moslim-lab models`: off-the-shelf models that the lab knows.

use crate::cli::{AddModelArgs, FolderArgs, LogitsArgs, ModelsCommand};
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::hub::HubId;
use crate::id::RunId;
use crate::log::say;
use indicatif::{ProgressBar, ProgressStyle};
use moslim_engine::keep::models::{KnownModel, KnownModels, Models, NewModel, name_from, name_of};
use moslim_engine::model::files::ModelFiles;
use moslim_engine::run::off_the_shelf::{Asked, chat, read};
use moslim_engine::text::chat::Message;
use std::path::Path;

/// Runs one of the commands about models.
///
/// # Errors
/// Bad input names its option; a model that cannot be read says which file, field or tensor is at fault.
pub fn run(command: &ModelsCommand) -> Result<(), Failure> {
    match command {
        ModelsCommand::Add(args) => {
            let data = DataFolder::resolve(args.folder.data.clone());
            data.create().map_err(Failure::BadInput)?;
            let new = new_model(args)?;
            let style = ProgressStyle::with_template("Reading {bar:30} {bytes} of {total_bytes}").expect("a valid template");
            let bar = ProgressBar::new(0).with_style(style);
            let added = models(&data).add(&new, |done, total| {
                bar.set_length(total);
                bar.set_position(done);
                Ok(())
            });
            bar.finish_and_clear();
            let model = added.map_err(|e| Failure::BadInput(format!("{e:#}")))?;
            if args.json { print_json(&model) } else { print_line(&format!("Added {}\n{}", model.name, described(&model))) }
        }
        ModelsCommand::List(args) => {
            let KnownModels { models, damaged } = models(&DataFolder::resolve(args.folder.data.clone())).list()?;
            damaged.iter().for_each(|error| say(&format!("left out: {error}")));
            if args.json {
                return print_json(&models);
            }
            if models.is_empty() && damaged.is_empty() {
                return print_line("No model was added yet: moslim-lab models add PATH|ID");
            }
            models
                .iter()
                .try_for_each(|m| print_line(&format!("{:<32} {:>8}  {}", m.name, count(m.weights), m.architecture.family)))
        }
        ModelsCommand::Show(args) => {
            let model = opened(&args.folder, &args.model)?.0;
            if args.json { print_json(&model) } else { print_line(&described(&model)) }
        }
        ModelsCommand::Logits(args) => {
            let asked = asked(args)?;
            let (text, added) = match (&args.text, &args.chat) {
                (Some(text), _) => (text.clone(), true),
                (None, Some(question)) => {
                    let system = args.system.iter().map(|text| Message::new("system", text.as_str()));
                    let messages: Vec<Message> = system.chain([Message::new("user", question.as_str())]).collect();
                    (chat(asked.files(), &messages)?, false)
                }
                (None, None) => return Err(Failure::field("text", "name a text with --text, or a question with --chat")),
            };
            let report = read(&asked, &text, added, args.greedy, args.device).map_err(|e| Failure::BadInput(format!("{e:#}")))?;
            if args.json {
                return print_json(&report);
            }
            let nll = report.mean_negative_log_likelihood.map_or("-".into(), |n| format!("{n:.4} nats a token"));
            print_line(&format!("{} tokens, mean negative log-likelihood {nll}", report.tokens.len()))?;
            print_line(&report.continuation)
        }
    }
}

/// The model that the arguments name; one on a hub is fetched.
fn new_model(args: &AddModelArgs) -> Result<NewModel, Failure> {
    let path = Path::new(&args.model);
    let ignored = args.ignore.clone();
    if path.exists() {
        for (field, value) in [("revision", &args.revision), ("file", &args.file)] {
            if value.is_some() {
                return Err(Failure::field(field, format!("is for models on the hub, and {} is here", args.model)));
            }
        }
        let name = args.name.clone().unwrap_or_else(|| name_of(path));
        return Ok(NewModel { path: path.into(), name, ignored, ..Default::default() });
    }
    let Some(id) = HubId::parse(&args.model, args.revision.as_deref(), args.file.as_deref()) else {
        return Err(Failure::field("model", format!("there is no folder or file {}", args.model)));
    };
    let fetched = id.fetch(say)?;
    let own = || match fetched.path.is_dir() {
        true => name_from(args.model.rsplit('/').next().unwrap_or_default()),
        false => name_of(&fetched.path),
    };
    let name = args.name.clone().unwrap_or_else(own);
    Ok(NewModel { path: fetched.path, name, ignored, source: Some(fetched.source), checksums: fetched.checksums })
}

fn models(data: &DataFolder) -> Models {
    Models::of(data.root())
}

/// A model by its name; its files are still what they were.
fn opened(folder: &FolderArgs, name: &str) -> Result<(KnownModel, ModelFiles), Failure> {
    let models = models(&DataFolder::resolve(folder.data.clone()));
    models.open(name).map_err(|e| Failure::BadInput(format!("{e:#}")))
}

/// What `logits` asks: a model by its name or, where none is called so, the policy of a run.
fn asked(args: &LogitsArgs) -> Result<Asked, Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let known = models(&data).find(&args.model)?.is_some();
    let run = args.model.parse::<RunId>().ok().map(|id| data.run(&id)).filter(|folder| !known && folder.is_dir());
    match run {
        Some(folder) => Asked::policy(&folder).map_err(|e| Failure::BadInput(format!("{e:#}"))),
        None => Ok(Asked::model(opened(&args.folder, &args.model)?.1)),
    }
}

/// A number of weights in words.
fn count(weights: u64) -> String {
    match weights as f64 {
        n if n >= 1e9 => format!("{:.1} B", n / 1e9),
        n if n >= 1e6 => format!("{:.0} M", n / 1e6),
        n => format!("{:.0} k", n / 1e3),
    }
}

/// What a person wants to know of a model.
fn described(model: &KnownModel) -> String {
    let a = &model.architecture;
    let stored: Vec<String> = model.storages.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let yes = |b: bool| if b { "yes" } else { "no" };
    [
        format!("  family         {}", a.family),
        format!(
            "  weights        {} ({} layers, width {}, vocabulary {})",
            count(model.weights),
            a.layers,
            a.d_model,
            a.vocabulary
        ),
        format!("  attention      {} heads of {}, {} for keys and values", a.heads, a.head_dim, a.kv_heads),
        format!("  context        {} tokens", a.context),
        format!("  stored as      {}", stored.join(", ")),
        format!("  chat template  {}", yes(model.template)),
        format!("  in             {}", model.path.display()),
    ]
    .into_iter()
    .chain(model.source.iter().map(|source| format!("  fetched from   {source}")))
    .collect::<Vec<_>>()
    .join("\n")
}
