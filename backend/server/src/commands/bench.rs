//! `moslim-lab bench`: how fast this machine trains, and how fast its peers do.

use crate::allocator::keep_what_is_freed;
use crate::cli::BenchArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::{DataFolder, write_file};
use crate::id::RunId;
use crate::launch::Local;
use crate::log::say;
use crate::study::Study;
use anyhow::{Context, bail};
use moslim_engine::bench::on_device as measure;
use moslim_engine::bench::{AnswersReport, BenchReport, SIZES, Size, SizeReport};
use moslim_engine::keep::files::Disk;
use moslim_engine::keep::journal::{self, Journal};
use moslim_engine::progress::Stop;
use moslim_shared::config::{DeviceChoice, Precision};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::metrics::ReliabilityBin;
use moslim_shared::presets;
use moslim_shared::study::{Axis, Host, StudyConfig};
use moslim_shared::summary::{
    ControlHead, ControlReport, ControlSummary, FrontPoint, FrontReport, KlPoint, RewardHeadReport, RewardModelReport, RunSummary,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a peer does on the same shapes; read by Python from its standard input.
const PEER: &str = include_str!("../../../../docs/peer_bench.py");

/// Seconds that the peer takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seconds {
    forward: f64,
    training_step: f64,
    generation: f64,
    iteration: f64,
}

impl Seconds {
    /// Medians of the figures of several turns.
    fn median(turns: &[Self]) -> Self {
        let of = |f: fn(&Self) -> f64| {
            let mut values: Vec<f64> = turns.iter().map(f).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            forward: of(|s| s.forward),
            training_step: of(|s| s.training_step),
            generation: of(|s| s.generation),
            iteration: of(|s| s.iteration),
        }
    }

    fn by(&self, ours: &Self) -> Self {
        Self {
            forward: self.forward / ours.forward,
            training_step: self.training_step / ours.training_step,
            generation: self.generation / ours.generation,
            iteration: self.iteration / ours.iteration,
        }
    }
}

/// The peer beside us.
#[derive(Debug, Clone, Serialize)]
struct Comparison {
    size: &'static str,
    turns: usize,
    /// Medians over the turns, seconds.
    ours: Seconds,
    peer: Seconds,
    /// Median over the turns of peer / ours: above 1, we are faster.
    ratio: Seconds,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    bench: BenchReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Comparison>,
}

/// Measures and prints.
///
/// # Errors
/// When a size or the peer is unknown, the peer fails, or the result cannot be written out.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    keep_what_is_freed();
    if let Some(events) = args.journal {
        return journal(events, args.json);
    }
    if args.answers {
        return answers(args);
    }
    if let Some(runs) = args.study {
        return study(usize::from(runs), usize::from(args.repetitions), args.json);
    }
    let known: Vec<&str> = SIZES.iter().map(|s| s.name).collect();
    let names: Vec<&str> = args.sizes.split(',').map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|n| !known.contains(n)) {
        return Err(Failure::field("sizes", format!("unknown size \"{unknown}\"; known are {}", known.join(", "))));
    }
    let python = match args.peer.as_deref().map(|p| p.split_once('=')) {
        None => None,
        Some(Some(("python", path))) if Path::new(path).is_file() => Some(path),
        Some(Some(("python", path))) => return Err(Failure::field("peer", format!("there is no program {path}"))),
        Some(_) => return Err(Failure::field("peer", "is not of the form python=PATH".to_string())),
    };
    let repetitions = usize::from(args.repetitions);
    let precision = if args.bf16 { Precision::Bf16 } else { Precision::F32 };
    if python.is_some() && (args.device != DeviceChoice::Cpu || args.bf16) {
        return Err(Failure::field("peer", "computes on the CPU in f32; leave out --device and --bf16".to_string()));
    }
    let bench = measure(args.device, &names, repetitions, precision, |next| say(&format!("Measuring {next} ...")))
        .map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    let mut report = Report { bench, peers: Vec::new() };
    if let Some(python) = python {
        for size in SIZES.iter().filter(|s| names.contains(&s.name) && s.iterates()) {
            report.peers.push(compare(size, python, usize::from(args.turns), repetitions)?);
        }
    }
    if args.json { print_json(&report) } else { print(&report) }
}

/// Measures how soon and how fast one answer comes.
fn answers(args: &BenchArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let preset = if args.model.is_some() { "offtheshelf" } else { "quick" };
    let mut config = presets::find(preset).map(|p| p.config).unwrap_or_default();
    config.base.model = args.model.clone().unwrap_or_default();
    let report = moslim_engine::bench::answers(data.files(), config, args.device, usize::from(args.repetitions))
        .map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if args.json {
        return print_json(&report);
    }
    let AnswersReport { threads, loading, first_word, tokens_per_second, repetitions, .. } = report;
    let who = args.model.as_deref().unwrap_or("the demo's model");
    print_line(&format!(
        "{who}, {threads} threads, medians of {repetitions}: first word after {first_word:.3} s, then {tokens_per_second:.0} tokens a \
         second; loaded in {loading:.2} s"
    ))
}

/// How fast a journal takes events.
#[derive(Debug, Serialize)]
struct JournalReport {
    events: u32,
    events_per_second: f64,
    /// Bytes of the journal for each event.
    bytes_per_event: f64,
}

/// Measures a journal on the disk that holds temporary files: `events` losses, each written and handed to the system by itself.
fn journal(events: u32, json: bool) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("moslim-bench-{}", std::process::id()));
    let files = Disk(folder.clone());
    let measured = (|| -> anyhow::Result<JournalReport> {
        let mut journal = Journal::open(&files, journal::FILE)?;
        let begun = Instant::now();
        for step in 0..events as usize {
            let (stage, part, total) = (Stage::Sft, None, events as usize);
            journal.add(&EventBody::Loss { stage, part, step, total, loss: 1.5 / (step + 1) as f64, rate: 17.25 })?;
        }
        let events_per_second = f64::from(events) / begun.elapsed().as_secs_f64();
        let bytes = std::fs::metadata(folder.join(journal::FILE))?.len();
        Ok(JournalReport { events, events_per_second, bytes_per_event: bytes as f64 / f64::from(events.max(1)) })
    })();
    let _ = std::fs::remove_dir_all(&folder);
    let report = measured?;
    if json {
        return print_json(&report);
    }
    print_line(&format!("{:.0} events a second, {:.0} bytes each", report.events_per_second, report.bytes_per_event))
}

/// What a study of finished runs takes.
#[derive(Debug, Serialize)]
struct StudyReport {
    runs: usize,
    /// Median seconds of going on with it: every summary is read, everything is put together and drawn.
    seconds: f64,
}

/// Measures a study whose `runs` runs, each with another seed, are finished.
fn study(runs: usize, repetitions: usize, json: bool) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("moslim-bench-{}", std::process::id()));
    let measured = (|| -> Result<f64, Failure> {
        let data = DataFolder::resolve(Some(folder.clone()));
        data.create().map_err(Failure::BadInput)?;
        let axis = Axis::field("learning rate", "policy.learning_rate", &[1e-3.into()]);
        let seeds = (1..=runs as u64).collect();
        let base = presets::find("quick").map(|p| p.config).unwrap_or_default();
        let config = StudyConfig { name: "bench".into(), question: String::new(), base, axes: vec![axis], seeds };
        let launcher = Local::new()?;
        let study = Study::create(&data, RunId::fresh(), config, Host::default())?;
        let state = study.state()?;
        for (n, run) in state.runs.iter().enumerate() {
            let id = run.run.parse().map_err(|e: String| Failure::Failed(e))?;
            let text = serde_json::to_vec_pretty(&finished(&run.run, n)).map_err(anyhow::Error::from)?;
            write_file(&data.run(&id).join("summary.json"), &text)?;
        }
        let mut seconds = Vec::new();
        for _ in 0..repetitions {
            let begun = Instant::now();
            study.run(None, &launcher, &Stop::default(), &mut |_| ())?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    })();
    let _ = std::fs::remove_dir_all(&folder);
    let report = StudyReport { runs, seconds: measured? };
    if json {
        return print_json(&report);
    }
    print_line(&format!("{} finished runs are put together in {:.3} s", report.runs, report.seconds))
}

/// A summary as large as one of `quick`, with figures that differ from run to run.
fn finished(run: &str, n: usize) -> RunSummary {
    let figure = |i: usize| ((n * 31 + i * 17) % 101) as f64 / 101.0;
    let matrix = |size: usize| (0..size).map(|r| (0..size).map(|c| figure(r + c)).collect()).collect::<Vec<Vec<f64>>>();
    let head = |i: usize| ControlHead { spearman: figure(i), hit_rate: figure(i + 1), matrix: matrix(5), ..Default::default() };
    let report = ControlReport { heads: (0..4).map(head).collect(), cross_talk: matrix(4), ..Default::default() };
    let control = ControlSummary { policy: report.clone(), sft: report, ..Default::default() };
    let bin = |i: usize| ReliabilityBin { confidence: figure(i), accuracy: figure(i + 1), n: i };
    let graded = |i: usize| RewardHeadReport {
        qwk: figure(i),
        confusion: vec![vec![n as u64; 5]; 5],
        reliability: (0..15).map(bin).collect(),
        ..Default::default()
    };
    let point = |i: usize| FrontPoint {
        weights: (0..4).map(|j| figure(i + j)).collect(),
        utility: (0..4).map(|j| figure(3 * i + j)).collect(),
        ..Default::default()
    };
    RunSummary {
        run: run.into(),
        seed: n as u64 + 1,
        reward_model: RewardModelReport {
            heads: (0..4).map(graded).collect(),
            gradient_cosines: matrix(4),
            ..Default::default()
        },
        control_reward_model: control.clone(),
        control,
        front: FrontReport {
            objectives: (0..4).map(|i| format!("objective {i}")).collect(),
            points: (0..14).map(point).collect(),
            reference: vec![0.0; 4],
            hypervolume: figure(0),
            ..Default::default()
        },
        kl_frontier: (0..21).map(|step| KlPoint { step, kl: figure(step), ..Default::default() }).collect(),
        ..Default::default()
    }
}

/// Takes turns with the peer.
fn compare(size: &'static Size, python: &str, turns: usize, repetitions: usize) -> Result<Comparison, Failure> {
    let (mut ours, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=turns {
        say(&format!("Turn {turn} of {turns} with the peer at {} ...", size.name));
        let peer = ask_peer(size, python)?;
        let own = measure(DeviceChoice::Cpu, &[size.name], repetitions, Precision::F32, |_| ())?.sizes.remove(0);
        let own = Seconds {
            forward: own.forward.median,
            training_step: own.training_step.median,
            generation: own.generation.median,
            iteration: own.iteration.map_or(f64::NAN, |i| i.median),
        };
        ratios.push(peer.by(&own));
        ours.push(own);
        peers.push(peer);
    }
    let [ours, peer, ratio] = [&ours, &peers, &ratios].map(|s| Seconds::median(s));
    Ok(Comparison { size: size.name, turns, ours, peer, ratio })
}

fn ask_peer(size: &Size, python: &str) -> anyhow::Result<Seconds> {
    let mut child = Command::new(python)
        .arg("-")
        .args(size.shape().map(|n| n.to_string()))
        .arg(size.rank().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {python}"))?;
    child.stdin.take().context("the peer's input")?.write_all(PEER.as_bytes())?;
    let output = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the peer ended with {}; its last words: {}", output.status, said.lines().last().unwrap_or("none"));
    }
    serde_json::from_str(printed.trim()).with_context(|| format!("the peer printed {printed:?}"))
}

fn print(report: &Report) -> Result<(), Failure> {
    let bench = &report.bench;
    let (device, threads, precision) = (&bench.device, bench.threads, bench.precision.id());
    let peak = bench.gemm_peak_gflops;
    print_line(&format!("{device} in {precision}, {threads} threads, matrix products {peak:.0} GFLOP/s; medians"))?;
    print_line("size    what                seconds   tokens/s   of peak")?;
    for size in &bench.sizes {
        print_size(size)?;
    }
    if !report.peers.is_empty() {
        print_line("size    what                   ours       peer   peer / ours")?;
    }
    for c in &report.peers {
        for (what, of) in [
            ("forward", (|s| s.forward) as fn(&Seconds) -> f64),
            ("training step", |s| s.training_step),
            ("generation", |s| s.generation),
            ("RLOO iteration", |s| s.iteration),
        ] {
            let (ours, peer, ratio) = (of(&c.ours), of(&c.peer), of(&c.ratio));
            print_line(&format!("{:<7} {what:<18} {ours:>8.4}   {peer:>8.4} {ratio:>10.2} x", c.size))?;
        }
    }
    Ok(())
}

fn print_size(size: &SizeReport) -> Result<(), Failure> {
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
            print_line(&format!("{:<7} {what:<18} {:>8.4} {:>10.0} {share:>7.0} %", size.size, f.median, f.tokens_per_second))?;
        }
    }
    if let Some(scaling) = &size.scaling {
        let batch: Vec<String> = scaling.batch.iter().map(|(rows, us)| format!("{us:.1} µs at {rows} rows")).collect();
        print_line(&format!("{:<7} training step, a token: {}", size.size, batch.join(", ")))?;
        if let [(1, one), (n, many)] = scaling.threads[..] {
            print_line(&format!("{:<7} training step, {n} threads: {:.2} times one thread", size.size, one / many))?;
        }
    }
    print_line(&format!("{:<7} {} parameters, at most {} MiB", size.size, size.parameters, size.peak_memory_mib))
}
