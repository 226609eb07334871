//! A finished run as files that others load: a whole model or an adapter for Hugging Face's libraries, or a GGUF file; with its
//! reward model, and a card that says what can be asked for and what was measured.
//!
//! Here belongs what a run's files become outside of the lab. How weights are written is in `model/files/`.

mod card;

use super::opened::{Opened, open, read_json};
use crate::evaluate::answer::Route;
use crate::keep::models::KnownModel;
use crate::model::architecture::{Architecture, Family, LayerPart, Part};
use crate::model::files::write::{Sheet, gguf, safetensors};
use crate::model::files::{DIVISORS, Gguf, Naming, Storage, Value, config, gguf_header};
use crate::model::transformer::Transformer;
use crate::reward::RewardModel;
use anyhow::{Context, Result, bail, ensure};
use burn::backend::Flex;
use moslim_shared::config::BaseConfig;
use moslim_shared::objective::{Objective, tags};
use moslim_shared::summary::RunSummary;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a policy is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A model of its own, the adapters added to the weights.
    Merged,
    /// The adapters alone, as PEFT has them.
    Adapter,
    /// One GGUF file.
    Gguf,
}

impl FromStr for Form {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "merged" => Ok(Self::Merged),
            "adapter" => Ok(Self::Adapter),
            "gguf" => Ok(Self::Gguf),
            other => Err(format!("is \"{other}\"; allowed are merged, adapter, gguf")),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    pub folder: PathBuf,
    /// Names and bytes.
    pub files: Vec<(String, u64)>,
}

/// What is on the CPU: exporting computes next to nothing.
type Cpu = Flex;

/// How others' libraries generate.
const GENERATION: &str = "generation_config.json";

/// Small files of a base model that go with it as they are.
const BESIDE: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    GENERATION,
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// How the lab's own models put a conversation, for others' libraries: tags are the system message.
const OWN_TEMPLATE: &str = "{% set tags = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}\
    {% for m in messages %}{% if m['role'] == 'user' %}<user>{{ tags }}{{ m['content'] }}{% elif m['role'] == 'assistant' %}\
    <assistant>{{ m['content'] }}<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// Writes the `policy`th policy of the run in `folder` to `to`, a folder that is not there yet or is empty; all of it or nothing.
/// `note` is told what is being written.
///
/// # Errors
/// When there is no such run or policy, a file of it is damaged (named), the form cannot hold what the policy is, or `to` cannot be
/// written or has something in it.
pub fn export(
    folder: &Path,
    to: &Path,
    (form, storage): (Form, Storage),
    policy: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Exported> {
    let opened = open(folder)?;
    let route = opened.route()?;
    let kept = match &route {
        Route::BestOf(_) => bail!("best-of-n chooses with the reward model and has no policy of its own"),
        route => route.kept(opened.config.steered(&opened.objectives).len()),
    };
    ensure!(policy < kept, "policy: is {policy}; the run kept {kept}, counted from 0");
    match form {
        Form::Adapter if opened.base.is_none() => {
            bail!("as: is adapter; a model of the lab's own has none, and is written as merged")
        }
        Form::Gguf if opened.base.is_none() => {
            bail!("as: is gguf; the tokenizer of the lab's own models has no counterpart there, and they are written as merged")
        }
        Form::Adapter if !opened.tokenizer.added().is_empty() => {
            bail!("as: is adapter; the policy has tags that its base model lacks, and is written as merged or gguf")
        }
        _ => {}
    }
    match (form, storage) {
        (Form::Gguf, _) | (_, Storage::F32 | Storage::F16 | Storage::Bf16) => {}
        (_, other) => bail!("weights: are {}; safetensors hold f32, f16 and bf16", other.name()),
    }
    let filled = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!filled && !to.is_file(), "to: {} is there already and has something in it", to.display());
    let name = to.file_name().context("to: is no name for a folder")?.to_string_lossy().into_owned();
    let half = to.with_file_name(format!(".{name}.partial-{}", std::process::id()));
    let written = Writing { opened: &opened, route: &route, to: &half, name: &name, note }.all(form, storage, policy);
    let done = written.and_then(|()| {
        let files = files(&half, "")?;
        if to.exists() {
            fs::remove_dir(to)?;
        }
        fs::rename(&half, to).with_context(|| format!("writing {}", to.display()))?;
        Ok(Exported { folder: to.to_path_buf(), files })
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&half);
    }
    done
}

/// Names and sizes of everything in a folder.
fn files(folder: &Path, before: &str) -> Result<Vec<(String, u64)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            out.extend(files(&entry.path(), &format!("{name}/"))?);
        } else {
            out.push((name, entry.metadata()?.len()));
        }
    }
    out.sort();
    Ok(out)
}

/// One export.
struct Writing<'a> {
    opened: &'a Opened,
    route: &'a Route,
    to: &'a Path,
    /// What the export is called.
    name: &'a str,
    note: &'a mut dyn FnMut(&str),
}

impl Writing<'_> {
    fn all(self, form: Form, storage: Storage, policy: usize) -> Result<()> {
        fs::create_dir_all(self.to).with_context(|| format!("writing {}", self.to.display()))?;
        (self.note)("reading the policy");
        let trunk = self.opened.trunk::<Cpu>(&Default::default())?;
        let model = self.opened.policy(policy, trunk.as_ref(), &Default::default())?;
        (self.note)("writing the policy");
        match form {
            Form::Merged => self.whole(self.to, &model.merged(), storage)?,
            Form::Adapter => self.adapter(self.to, &model)?,
            Form::Gguf => self.gguf(&model.merged(), storage)?,
        }
        if form != Form::Gguf {
            self.tokenizer()?;
            (self.note)("writing the reward model");
            self.reward_models(trunk.as_ref(), storage)?;
        }
        let summary: Option<RunSummary> = self.opened.json("summary.json").ok().flatten();
        let card = card::card(self.opened, self.route, summary.as_ref(), (form, self.name, policy));
        text(self.to, "README.md", &card)
    }

    /// The number of a special token.
    fn id(&self, token: Option<&str>) -> Option<u32> {
        self.opened.tokenizer.token(token?)
    }

    /// `config.json` for a decoder of `a`'s shape: the base's own where it is one of the base's.
    fn config(&self, folder: &Path, a: &Architecture, storage: Storage) -> Result<()> {
        let config = match &self.opened.base {
            Some((known, files)) if known.path.is_dir() => {
                let mut config: Json = read_json(&known.path.join("config.json"))?;
                config["torch_dtype"] = json!(config::dtype(storage));
                if let Some(fields) = config.as_object_mut() {
                    fields.remove("dtype");
                    fields.remove("quantization_config");
                    fields.insert("tie_word_embeddings".into(), json!(files.architecture.tied));
                    fields.insert("vocab_size".into(), json!(a.vocabulary));
                }
                config
            }
            Some((_, files)) => config::config(a, storage, self.id(files.bos.as_deref()), self.id(files.eos.as_deref()))?,
            None => config::config(a, storage, None, Some(self.opened.tokenizer.eos))?,
        };
        pretty(folder, "config.json", &config)
    }

    /// A whole model.
    fn whole(&self, folder: &Path, model: &Transformer<Cpu>, storage: Storage) -> Result<()> {
        let (a, weights) = for_others(model);
        self.config(folder, &a, storage)?;
        safetensors(&folder.join("model.safetensors"), &Sheet::all(Naming::HuggingFace, &a, storage, &weights))
    }

    /// The adapters of a model, as PEFT has them.
    fn adapter(&self, folder: &Path, model: &Transformer<Cpu>) -> Result<()> {
        let a = model.architecture();
        let mut sheets = Vec::new();
        for (l, layer) in model.adapters().iter().enumerate() {
            for part in [LayerPart::Qkv, LayerPart::AttentionOut, LayerPart::GateUp, LayerPart::Down] {
                let names = Naming::HuggingFace.tensors(a, Part::Layer(l, part));
                for (n, [down, up]) in layer.of(part).map_or_else(Vec::new, |adapter| adapter.pairs()) {
                    let (name, shape) = &names[n];
                    let name = name.trim_end_matches(".weight");
                    let rank = self.opened.config.base.rank;
                    let sheet = |which: &str, shape: [usize; 2], values| {
                        Sheet::of(format!("base_model.model.{name}.lora_{which}.weight"), &shape, values)
                    };
                    sheets.push(sheet("A", [rank, shape[1]], down));
                    sheets.push(sheet("B", [shape[0], rank], up));
                }
            }
        }
        safetensors(&folder.join("adapter_model.safetensors"), &sheets)?;
        let known = self.opened.base.as_ref().and_then(|(known, _)| known.hub_id());
        let of = (self.base_name().0, known.map(|(_, commit)| commit));
        pretty(folder, "adapter_config.json", &adapter_config(&self.opened.config.base, of))
    }

    /// What others call the base model, and the file in it where it is a GGUF file.
    fn base_name(&self) -> (Option<String>, Option<String>) {
        let Some((known, _)) = &self.opened.base else { return (None, None) };
        let file = (!known.path.is_dir()).then(|| known.path.file_name().map(|n| n.to_string_lossy().into_owned())).flatten();
        let folder = if file.is_some() { known.path.parent().unwrap_or(&known.path) } else { &known.path };
        let name = known.hub_id().map_or_else(|| folder.display().to_string(), |(id, _)| id.to_string());
        (Some(name), file)
    }

    fn tokenizer(&self) -> Result<()> {
        let tokenizer = &self.opened.tokenizer;
        // What is only read: roles and tags.
        let silent: Vec<usize> = (tokenizer.outputs()..tokenizer.vocabulary()).collect();
        let copy = |from: &Path, but: &[&str]| {
            let kept = |name: &&&str| !but.contains(*name) && from.join(name).is_file();
            BESIDE.iter().filter(kept).try_for_each(|name| {
                fs::copy(from.join(name), self.to.join(name))
                    .with_context(|| format!("copying {}", from.join(name).display()))
                    .map(drop)
            })
        };
        let settings = |template: Option<&str>, bos: Option<&str>, eos: Option<&str>, context: usize| {
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": bos,
                "eos_token": eos,
                "pad_token": eos,
                "chat_template": template,
                "clean_up_tokenization_spaces": false,
                "model_max_length": context,
            })
        };
        let ends = |bos: Option<&str>, eos: Option<&str>| json!({"bos_token_id": self.id(bos), "eos_token_id": self.id(eos)});
        match &self.opened.base {
            Some((known, _)) if known.path.is_dir() && silent.is_empty() => copy(&known.path, &[]),
            Some((known, files)) if known.path.is_dir() => {
                copy(&known.path, &["tokenizer.json", GENERATION])?;
                text(self.to, "tokenizer.json", &tokenizer.to_json()?)?;
                let own = known.path.join(GENERATION);
                let own = if own.is_file() { read_json(&own)? } else { ends(files.bos.as_deref(), files.eos.as_deref()) };
                pretty(self.to, GENERATION, &silenced(own, &silent))
            }
            Some((_, files)) => {
                let json = if silent.is_empty() { files.tokenizer.clone() } else { tokenizer.to_json()? };
                text(self.to, "tokenizer.json", &json)?;
                let (bos, eos) = (files.bos.as_deref(), files.eos.as_deref());
                pretty(
                    self.to,
                    "tokenizer_config.json",
                    &settings(files.template.as_deref(), bos, eos, files.architecture.context),
                )?;
                pretty(self.to, GENERATION, &silenced(ends(bos, eos), &silent))
            }
            None => {
                text(self.to, "tokenizer.json", &tokenizer.to_json()?)?;
                let context = self.opened.config.model.context;
                let mut own = settings(Some(OWN_TEMPLATE), None, Some("<eos>"), context);
                // Else transformers switches it off.
                own["add_prefix_space"] = json!(true);
                pretty(self.to, "tokenizer_config.json", &own)?;
                let generation = json!({"eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.eos});
                pretty(self.to, GENERATION, &silenced(generation, &silent))
            }
        }
    }

    fn reward_models(&self, trunk: Option<&Transformer<Cpu>>, storage: Storage) -> Result<()> {
        let calibration = self.opened.calibration()?.context("calibration.json is missing; is the run finished?")?;
        let models = self.opened.reward_models(trunk, &Default::default())?;
        let many = models.len() > 1;
        for (n, model) in models.iter().enumerate() {
            let folder = self.to.join(if many { format!("reward-{}", n + 1) } else { "reward".into() });
            fs::create_dir_all(&folder)?;
            let heads: Vec<usize> = if many { vec![n] } else { (0..self.opened.objectives.len()).collect() };
            let objective = |(at, &i): (usize, &usize)| {
                let Objective { id, name, classes, .. } = &self.opened.objectives[i];
                json!({
                    "id": id, "name": name, "classes": classes, "outputs": model.widths()[at],
                    "temperature": calibration.temperatures[i], "thresholds": calibration.thresholds.get(i),
                })
            };
            let (base_model, gguf_file) = self.base_name();
            let about = json!({
                "base_model": base_model,
                "gguf_file": gguf_file,
                "layers": model.trunk.architecture().layers,
                "loss": calibration.loss,
                "pooling": model.pooling(),
                "objectives": heads.iter().enumerate().map(objective).collect::<Vec<_>>(),
                "mapping": calibration.mapping,
                "statistics": calibration.statistics,
            });
            pretty(&folder, "reward.json", &about)?;
            text(&folder, "reward_model.py", include_str!("reward_model.py"))?;
            self.reward_weights(&folder, model, storage)?;
        }
        Ok(())
    }

    fn reward_weights(&self, folder: &Path, model: &RewardModel<Cpu>, storage: Storage) -> Result<()> {
        let [weight, bias] = model.head_weights();
        let (d, outputs) = (model.pooling().width(model.trunk.architecture().d_model), bias.len());
        let sheets = [Sheet::of("weight", &[weight.len() / d, d], weight), Sheet::of("bias", &[outputs], bias)];
        safetensors(&folder.join("heads.safetensors"), &sheets)?;
        if self.opened.base.is_some() { self.adapter(folder, &model.trunk) } else { self.whole(folder, &model.trunk, storage) }
    }

    fn gguf(&self, model: &Transformer<Cpu>, storage: Storage) -> Result<()> {
        let (known, files) = self.opened.base.as_ref().context("no off-the-shelf model")?;
        let (a, weights) = for_others(model);
        let family = Family::of(&a.family)?;
        let naming = Naming::Gguf { interleaved: family.interleaved_in_gguf };
        let mut sheets = Sheet::all(naming, &a, storage, &weights);
        let mut values = if known.path.is_dir() { gguf_header::values(files, self.name)? } else { self.gguf_values(known)? };
        if !self.opened.tokenizer.added().is_empty() {
            gguf_header::add_tokens(&mut values, files.architecture.vocabulary, tags(&self.opened.objectives));
        }
        if let Some(divisors) = gguf_header::divisors(&a) {
            sheets.push(Sheet::of(DIVISORS, &[divisors.len()], divisors));
        }
        let kind = match storage {
            Storage::F32 => 0,
            Storage::F16 => 1,
            Storage::Bf16 => 32,
            _ => 7,
        };
        let own = [("general.file_type", Value::Unsigned(kind)), ("general.quantization_version", Value::Unsigned(2))];
        let all: Vec<(String, Value)> = values.into_iter().chain(own.map(|(k, v)| (k.to_string(), v))).collect();
        gguf(&self.to.join("model.gguf"), &all, &sheets)
    }

    /// The values of the base's own file, but for what says how its weights are stored.
    fn gguf_values(&self, known: &KnownModel) -> Result<Vec<(String, Value)>> {
        let file = Gguf::open(&known.path).with_context(|| format!("reading {}", known.path.display()))?;
        let stale = ["general.file_type", "general.quantization_version", "general.alignment", "general.name"];
        let kept = file.values.into_iter().filter(|(key, _)| !stale.contains(&key.as_str()));
        Ok(kept.chain([("general.name".to_string(), Value::Text(self.name.into()))]).collect())
    }
}

/// Writes a small file of an export.
fn text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn pretty(folder: &Path, name: &str, value: &Json) -> Result<()> {
    text(folder, name, &serde_json::to_string_pretty(value)?)
}

/// What PEFT wants to know of adapters beside their weights. `of`: what others call the model that they adapt, and its commit.
fn adapter_config(base: &BaseConfig, of: (Option<String>, Option<&str>)) -> Json {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": of.0,
        "revision": of.1,
        "r": base.rank,
        "lora_alpha": base.alpha,
        "lora_dropout": 0.0,
        "target_modules": base.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": "gaussian",
        "inference_mode": true,
        "modules_to_save": null,
    })
}

/// How others generate with a model that never writes some of its tokens.
fn silenced(mut generation: Json, silent: &[usize]) -> Json {
    if let Some(fields) = generation.as_object_mut().filter(|_| !silent.is_empty()) {
        let known = fields.get("suppress_tokens").and_then(Json::as_array).cloned().unwrap_or_default();
        let all: Json = known.into_iter().chain(silent.iter().map(|&token| json!(token))).collect();
        fields.insert("suppress_tokens".into(), all);
    }
    generation
}

/// A model as others' decoders have it, which write every entry that they read: what a model of ours never writes has a score of 0, or,
/// where embeddings are tied, that of its embedding.
fn for_others(model: &Transformer<Cpu>) -> (Architecture, impl Fn(Part) -> Vec<f32>) {
    let own = model.architecture();
    let weights = move |part: Part| match part {
        Part::Head => padded(&model.weights(part), own.d_model, own.vocabulary),
        part => model.weights(part),
    };
    (Architecture { outputs: own.vocabulary, ..own.clone() }, weights)
}

/// A matrix of `[rows, n]` with columns of zeros behind it, `[rows, columns]`.
fn padded(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let own = values.len() / rows.max(1);
    let mut out = vec![0.0; rows * columns];
    for (row, values) in values.chunks(own.max(1)).enumerate() {
        out[row * columns..row * columns + own].copy_from_slice(values);
    }
    out
}

/// The licence that a base model names: of its card, or of its GGUF file.
fn licence(known: &KnownModel) -> Option<String> {
    if known.path.is_dir() {
        let card = fs::read_to_string(known.path.join("README.md")).ok()?;
        let front = card.strip_prefix("---")?.split("\n---").next()?.to_string();
        return front.lines().find_map(|l| l.strip_prefix("license:")).map(|l| l.trim().trim_matches('"').to_string());
    }
    Gguf::open(&known.path).ok()?.values.get("general.license")?.text().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::AdapterTarget;

    #[test]
    fn peft_is_told_which_matrices_are_adapted() {
        let mut base = BaseConfig { rank: 4, alpha: 6.0, ..Default::default() };
        let told = |base: &BaseConfig| adapter_config(base, (Some("lab/tiny".into()), None));
        assert_eq!(told(&base)["target_modules"], json!(AdapterTarget::ALL.map(AdapterTarget::id)));
        base.targets = vec![AdapterTarget::QProj, AdapterTarget::UpProj];
        let some = told(&base);
        assert_eq!((&some["r"], &some["lora_alpha"]), (&json!(4), &json!(6.0)));
        assert_eq!(some["target_modules"], json!(["q_proj", "up_proj"]));
    }
}
