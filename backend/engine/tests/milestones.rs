//! The policy on its way: it is kept at milestones while it is optimised, once each whatever interrupts the run, and answers before the run
//! is finished.

use moslim_engine::keep::files::{Append, Files, Memory};
use moslim_engine::keep::{Job, journal, milestone_file};
use moslim_engine::progress::Stop;
use moslim_engine::run::{Generator, RunError, train};
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::event::{Event, EventBody, RunInfo};
use moslim_shared::inference::{GenerateRequest, MILESTONES, Source};
use moslim_shared::method::Method;
use moslim_shared::presets;
use moslim_shared::summary::RunSummary;
use std::io;
use std::sync::{Arc, Mutex};

/// Files in memory, and the names of those that were written.
#[derive(Default)]
struct Counted(Memory, Mutex<Vec<String>>);

impl Files for Counted {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.1.lock().unwrap().push(path.into());
        self.0.write(path, bytes)
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        self.0.append(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn describe(&self, path: &str) -> String {
        self.0.describe(path)
    }
}

impl Counted {
    fn bytes(&self, file: &str) -> Option<Vec<u8>> {
        self.read(&format!("runs/a/{file}")).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        journal::events(&self.bytes(journal::FILE).expect("a journal"))
    }

    /// Which milestones were told, and after how many iterations.
    fn told(&self) -> Vec<(u8, usize)> {
        let told = |event: &Event| match event.body {
            EventBody::Milestone { share, step } => Some((share, step)),
            _ => None,
        };
        self.events().iter().filter_map(told).collect()
    }

    /// How often each milestone was written.
    fn written(&self) -> [usize; 3] {
        MILESTONES.map(|share| {
            let path = format!("runs/a/{}", milestone_file(share));
            self.1.lock().unwrap().iter().filter(|own| **own == path).count()
        })
    }
}

fn config() -> RunConfig {
    let config = presets::find("smoke").expect("a shipped preset").config;
    RunConfig { device: DeviceChoice::Cpu, ..config }
}

/// Trains until `ends` is true of something that it says.
fn train_until(files: &Arc<Counted>, config: RunConfig, ends: impl Fn(&EventBody) -> bool) -> Result<RunSummary, RunError> {
    let stop = Stop::default();
    let job = Job::new("a", config, files.clone());
    train(&job, &stop, &mut |body| {
        if ends(body) {
            stop.interrupt();
        }
    })
}

fn load(files: &Arc<Counted>) -> Generator {
    Generator::load_in(files.clone(), "runs/a".into(), DeviceChoice::Cpu).expect("a run that answers")
}

fn ask(generator: &Generator, source: Source) -> Result<Vec<String>, String> {
    let (prompt, target) = ("How do I make tea?".into(), "verbosity=0".into());
    let request = GenerateRequest { prompt, target, source, n: 32, max_new_tokens: 16, ..Default::default() };
    generator.texts(&request).map_err(|e| format!("{e:#}"))
}

#[test]
fn milestones_are_kept_once_and_answer_before_the_end_and_after_it() {
    let alone = Arc::new(Counted::default());
    train_until(&alone, config(), |_| false).unwrap();
    let expected = [(25, 4), (50, 8), (75, 12)];
    assert_eq!((alone.told().as_slice(), alone.written()), (&expected[..], [1; 3]));

    // Stopped after nine of sixteen iterations.
    let files = Arc::new(Counted::default());
    let ninth = |body: &EventBody| matches!(body, EventBody::Policy { step, .. } if step.step == 9);
    assert!(matches!(train_until(&files, config(), ninth), Err(RunError::Stopped(_))));
    assert_eq!(files.told(), expected[..2]);
    let early = load(&files);
    let [quarter, half, newest] = [Source::Quarter, Source::Half, Source::Newest].map(|s| ask(&early, s).unwrap());
    assert!(quarter != half && quarter != newest, "each answers with weights of its own");
    for (source, name) in [(Source::Policy, "policy"), (Source::Start, "start"), (Source::ThreeQuarters, "75")] {
        assert_eq!(ask(&early, source).unwrap_err(), format!("source: is {name}; this run has 25, 50, newest"));
    }

    // Of a checkpoint that is not whole nothing is believed.
    let checkpoint = files.bytes("checkpoint-policy.bin").expect("a checkpoint");
    files.write("runs/a/checkpoint-policy.bin", &checkpoint[..checkpoint.len() / 2]).unwrap();
    let said = ask(&early, Source::Newest).unwrap_err();
    assert!(said.contains("ask again") && !said.starts_with("source: "), "{said}");

    // It goes on from the one before it, of the sixth iteration, and reaches the half once more.
    files.remove("runs/a/checkpoint-policy.bin").unwrap();
    assert!(!early.is_outdated());
    train_until(&files, config(), |_| false).unwrap();
    assert_eq!(files.told(), [(25, 4), (50, 8), (50, 8), (75, 12)]);
    assert_eq!(files.written(), [1; 3]);
    for share in MILESTONES {
        assert!(files.bytes(&milestone_file(share)) == alone.bytes(&milestone_file(share)), "{share}");
    }
    let mut info = RunInfo::new("a", &config(), 0);
    files.events().iter().for_each(|event| info.hear(event));
    assert_eq!(info.milestones, MILESTONES);

    // Finished, what was learnt so far is what was learnt.
    assert!(early.is_outdated());
    let late = load(&files);
    let policy = ask(&late, Source::Policy).unwrap();
    assert_eq!((ask(&late, Source::Newest), ask(&late, Source::Quarter)), (Ok(policy.clone()), Ok(quarter)));
    assert!(policy != half && ask(&late, Source::Start).is_ok() && ask(&late, Source::ThreeQuarters).is_ok());
}

#[test]
fn of_several_policies_none_is_kept_on_its_way() {
    let files = Arc::new(Counted::default());
    let mut config = config();
    config.method.kind = Method::RewardedSoups;
    let second = |body: &EventBody| matches!(body, EventBody::Policy { part: Some(part), .. } if part.index == 2);
    assert!(matches!(train_until(&files, config, second), Err(RunError::Stopped(_))));
    assert_eq!((files.told(), files.written()), (vec![], [0; 3]));
    let refused = Generator::load_in(files, "runs/a".into(), DeviceChoice::Cpu).err().expect("nothing to answer with");
    assert!(format!("{refused:#}").contains("is the run finished?"), "{refused:#}");
}
