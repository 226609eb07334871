//! The command line. What it promises (options, exit codes, JSON on standard output) is a contract.

mod ask;
mod data;
mod runs;
mod study;

pub use ask::*;
pub use data::*;
pub use runs::*;
pub use study::*;

use crate::access::keys::Role;
use crate::id::RunId;
use crate::origin::Origin;
use crate::queue::Slots;
use clap::{ArgGroup, Args, Parser, Subcommand};
use moslim_engine::model::files::Storage;
use moslim_engine::run::export::Form;
use moslim_shared::config::{DeviceChoice, EvaluationSplit};
use std::path::PathBuf;

/// Trains, steers and shows language models that obey graded preferences.
///
/// Exit codes: 0 when all went well, 1 when the work failed, 2 when the input was bad (the message names the field).
/// With --json exactly one JSON document goes to standard output; progress and logs go to standard error.
#[derive(Debug, Parser)]
#[command(name = "moslim-lab", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the laboratory's page and API on this machine.
    Serve(ServeArgs),
    /// Make a token for a member of a group, and the entry that makes it known to a server.
    Token(TokenArgs),
    /// Train in this process, from supervised fine-tuning to evaluation.
    Train(TrainArgs),
    /// Evaluate what a finished run has trained once more, on other questions or with other settings; it becomes a run of its own.
    Evaluate(EvaluateArgs),
    /// Train many runs that answer one question, and compare them.
    Study(StudyArgs),
    /// Compare all methods, optimisers and mappings: tuning first, then the studies that the results are made of
    Compare(CompareArgs),
    /// End a run or a study that trains in another process.
    Stop(StopArgs),
    /// Have a run keep a checkpoint and end, so that others can use its device, until it is resumed.
    Pause(NamedRunArgs),
    /// End the process of a run at once, for one that does not end when it is told to; it can be resumed from its last checkpoint.
    Kill(NamedRunArgs),
    /// Make the server's index of runs anew from their folders.
    Reindex(ReindexArgs),
    /// The process in which a server trains a run.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// The process in which a server's finished run answers.
    #[command(hide = true)]
    Inference(WorkerArgs),
    /// Grade JSON lines {"prompt", "response"} from standard input with a run's reward model.
    Score(ScoreArgs),
    /// Let a run's policy answer a prompt.
    Generate(GenerateArgs),
    /// Write a run's policy and reward model as files that other software loads.
    Export(ExportArgs),
    /// Take runs from lab to lab, each as one file.
    Runs(RunsArgs),
    /// List the devices that can be computed on.
    Devices(DevicesArgs),
    /// Measure how fast this machine trains and generates.
    Bench(BenchArgs),
    /// Make a task of ratings in files, or of a data set on the hub.
    Import(ImportArgs),
    /// Grade answers yourself, or choose between two; what you say can be imported.
    Rate(RateArgs),
    /// Look at data, and change the classes of imported tasks.
    Data(DataArgs),
    /// Add off-the-shelf models, and look at them.
    Models(ModelsArgs),
    /// Look whether everything is there that the lab needs, and whether what it keeps is what it wrote.
    Doctor(DoctorArgs),
    /// Copy runs, studies, tasks and known models to another folder, also while the lab runs; only what is new is copied again.
    Backup(BackupArgs),
    /// Make a data folder of a backup.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Identifier of a finished run in the data folder.
    pub run: RunId,
    /// Folder to write to; it is made, or is empty.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// merged (a whole model), adapter (what was trained beside a frozen one, for PEFT) or gguf.
    #[arg(long = "as", default_value = "merged", value_name = "FORM")]
    pub form: Form,
    /// How weights are stored: f32, f16, bf16, and q8_0 in GGUF files.
    #[arg(long, default_value = "f32")]
    pub weights: Storage,
    /// Which policy of a method that keeps several, from 0.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub policy: usize,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Add a model from a Hugging Face folder, a GGUF file or a hub. Its files stay where they are.
    Add(AddModelArgs),
    /// List the models that were added.
    List(ListModelsArgs),
    /// Show what a model is made of.
    Show(ShowModelArgs),
    /// What a model makes of a text: tokens, likelihood, scores of the next token, and how it goes on.
    Logits(LogitsArgs),
}

#[derive(Debug, Args)]
pub struct AddModelArgs {
    /// Folder with config.json, tokenizer.json and safetensors, or a GGUF file; or OWNER/NAME on the hub, which is then fetched (HF_HOME,
    /// HF_ENDPOINT and HF_TOKEN are respected).
    #[arg(value_name = "PATH|ID")]
    pub model: String,
    /// Name to know it by [default: that of the folder, the file or the id].
    #[arg(long)]
    pub name: Option<String>,
    /// Of a model on the hub, the branch, tag or commit [default: main].
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Of a model on the hub, the GGUF file to fetch instead of its folder.
    #[arg(long, value_name = "NAME")]
    pub file: Option<String>,
    /// Field of config.json that changes nothing in what the model computes, although the lab does not know it; may be repeated.
    #[arg(long, value_name = "FIELD")]
    pub ignore: Vec<String>,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ListModelsArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ShowModelArgs {
    /// Name of the model.
    pub model: String,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["text", "chat"])))]
pub struct LogitsArgs {
    /// Name of the model, or identifier of a finished run whose policy is asked.
    pub model: String,
    /// Text as it is.
    #[arg(long)]
    pub text: Option<String>,
    /// Question, put into the model's own chat template.
    #[arg(long, value_name = "QUESTION")]
    pub chat: Option<String>,
    /// System message of the conversation.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// Tokens to go on with, each the most probable.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub greedy: usize,
    /// Device to compute on: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Where things are kept.
#[derive(Debug, Default, Args)]
pub struct FolderArgs {
    /// Data folder [default: MOSLIM_LAB_DATA, else lab-data in the current folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 7878)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Open the page in a browser.
    #[arg(long)]
    pub open: bool,
    /// TOML file with the tokens of a group, beside the server's own; it is read anew at SIGHUP. `moslim-lab token` makes its entries.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Ask nobody for a token. Only on an address of this machine, whose other users may then do everything.
    #[arg(long, conflicts_with = "tokens")]
    pub no_token: bool,
    /// Name that the server is reached by, without a port; may be repeated.
    #[arg(long = "name", value_name = "HOST")]
    pub names: Vec<String>,
    /// Where people reach the server, where that is elsewhere: https://lab.example.org of a reverse proxy, http://localhost:8080 of a container. It
    /// is the address that is printed, its host is one of the names, and with https browsers keep their cookie for TLS.
    #[arg(long, value_name = "URL")]
    pub url: Option<Origin>,
    /// Certificate chain in PEM: the server then speaks TLS. It is read anew at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Key of the certificate in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Offer to train studies on the Slurm cluster that this machine can submit to: how it wants its jobs, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Offer to train studies on a Ray cluster: where it is and how it wants its jobs, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub ray: Option<PathBuf>,
    /// GiB that the data folder may hold; beyond, nothing new starts.
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub quota: Option<u64>,
    /// Put runs into the trash that have ended, were made more than so many days ago, have no name, tag or note, and are of no study.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub keep_days: Option<u64>,
    /// Memory that a run may take, MiB; without, what the machine has.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 30))]
    pub run_memory: Option<u64>,
    /// Runs that train at a time on each device, as in cpu=2,cuda=1; one where nothing is said.
    #[arg(long, value_name = "LIST")]
    pub slots: Option<Slots>,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whose it will be.
    pub name: String,
    /// What it lets do: view (look), run (also start, stop and ask) or admin (everything).
    #[arg(long, default_value = "run")]
    pub role: Role,
}

#[derive(Debug, Default, Args)]
pub struct TrainArgs {
    /// Preset to start from: smoke, quick, tab, noisy, sparse, biased, world, standard, offtheshelf or ratings [default:
    /// quick].
    #[arg(long)]
    pub preset: Option<String>,
    /// JSON file with the configuration; it replaces the preset, and fields that it leaves out have their defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Off-the-shelf model to begin with, by the name that it was added under; overrides preset and file.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Imported task that the run is about; overrides preset and file.
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Seed of every random choice; overrides preset and file.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Device to compute on (auto, cpu, cuda or wgpu); overrides preset and file.
    #[arg(long)]
    pub device: Option<DeviceChoice>,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Identifier of the run. A run that exists is resumed from its last checkpoint, with its own configuration unless
    /// one is given.
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// Start from the policy of this finished run: a new run that goes on where it ended, with its configuration unless one
    /// is given.
    #[arg(long, value_name = "ID")]
    pub from: Option<RunId>,
    /// Go on with the policy optimisation of this run from its last checkpoint, as a new run, with its configuration unless one is given,
    /// which may differ in policy and evaluation. Where it has finished, evaluate what it has trained, as `evaluate` does.
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub fork: Option<RunId>,
    /// Whose questions are asked in the evaluation (test or validation); overrides preset and file.
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<EvaluationSplit>,
    /// Train nothing, but measure a few steps of every stage, and say how long the run would take and how much memory. For off-the-shelf
    /// models.
    #[arg(long, conflicts_with_all = ["run", "fork"])]
    pub estimate: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Identifier of the finished run.
    pub of: RunId,
    /// Whose questions are asked (test or validation); overrides the file.
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<EvaluationSplit>,
    /// JSON or TOML file with the configuration, that of the run but for `evaluation` [default: the run's own].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Identifier of the new run.
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[arg(long)]
    pub run: RunId,
    #[arg(long)]
    pub data: PathBuf,
    /// Only the stages that other runs share, which are then in the cache.
    #[arg(long)]
    pub stages: bool,
}

#[derive(Debug, Args)]
pub struct ReindexArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Model sizes to measure: 0.16M, 0.72M, 8.7M, 135M, 135M-LoRA.
    #[arg(long, default_value = "0.16M,0.72M,8.7M")]
    pub sizes: String,
    /// Times that everything is measured, at least 1.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub repetitions: u16,
    /// Device to measure: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Multiply activations and weights in bf16.
    #[arg(long)]
    pub bf16: bool,
    /// Do the same work with PyTorch, transformers and TRL, in turn with ours: python=PATH names a Python that has them.
    #[arg(long, value_name = "python=PATH")]
    pub peer: Option<String>,
    /// Turns with the peer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub turns: u16,
    /// Instead of models, measure how long a study takes to put this many finished runs together.
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["peer", "device", "bf16"], value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub study: Option<u16>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
    /// Measure how fast a journal takes this many events instead.
    #[arg(long, value_name = "EVENTS", conflicts_with_all = ["sizes", "peer", "study"])]
    pub journal: Option<u32>,
    /// Measure instead how soon and how fast one answer comes in the playground, of the demo's model.
    #[arg(long, conflicts_with_all = ["sizes", "peer", "study", "journal", "bf16"])]
    pub answers: bool,
    /// The same of an off-the-shelf model, by the name that it was added under.
    #[arg(long, value_name = "NAME", requires = "answers")]
    pub model: Option<String>,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("moslim-lab").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_ids_and_devices_end_with_exit_code_2() {
        for line in [
            "train --run ../x",
            "train --run A",
            "train --device tpu",
            "score",
            "score --run a --folder b",
            "generate --run ../../etc --prompt x",
            "generate --run a-1 --prompt x --source 20",
            "generate --run a-1 --prompt x --source 50 --start",
            "worker --run a/b --data d",
            "stop",
            "stop --run a --study b",
            "pause",
            "kill ../x",
            "serve --slots cpu=0",
            "serve --url lab.example.org",
            "serve --url https://lab.example.org/lab",
            "runs priority a 101",
            "runs trash --run a",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn defaults_are_as_documented() {
        let Command::Serve(serve) = parse("serve").unwrap().command else { panic!("serve was expected") };
        assert_eq!((serve.port, serve.host.as_str(), serve.open, serve.no_token), (7878, "127.0.0.1", false, false));
        let Command::Generate(generate) = parse("generate --run a-1 --prompt x").unwrap().command else {
            panic!("generate was expected")
        };
        assert_eq!((generate.n, generate.temperature, generate.max_new_tokens), (1, None, None));
        assert_eq!(generate.who, moslim_shared::inference::Source::Policy);
        assert_eq!(generate.source.device, DeviceChoice::Auto);
    }
}
