//! What a run is taken for while its processes come and go.

use super::*;
use crate::launch::process::KILLED;
use crate::launch::{Ending, Launch};
use crate::queue::Priority;
use moslim_shared::event::EventBody;
use moslim_shared::presets;
use std::path::Path;

/// Processes that end with code 1; `between` happens while it is asked for one.
#[derive(Default)]
struct Gone {
    between: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Launcher for Gone {
    fn start(&self, _launch: &Launch) -> Result<()> {
        Ok(())
    }

    fn stop(&self, _folder: &Path, _ending: Ending) -> Result<bool> {
        Ok(false)
    }

    fn poll(&self, _folder: &Path) -> Life {
        let between = self.between.lock().unwrap().take();
        if let Some(between) = between {
            between();
        }
        Life::Gone(Some("exit code 1".into()))
    }
}

#[test]
fn the_end_of_one_process_is_not_that_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::resolve(Some(folder.path().into()));
    let (id, config): (RunId, _) = ("a-run".parse().unwrap(), presets::find("smoke").unwrap().config);
    data.job(&id, config.clone()).write_config().unwrap();
    let launcher = Arc::new(Gone::default());
    let follower = Follower::open(data, launcher.clone(), HashMap::new()).unwrap();
    let status = || follower.known(&id).unwrap().status;
    // It is resumed while somebody looks how its last process went.
    let resumes = (follower.clone(), id.clone(), config);
    *launcher.between.lock().unwrap() = Some(Box::new(move || resumes.0.expect(&resumes.1, &resumes.2)));
    follower.look(&id);
    assert_eq!(status(), RunStatus::Running, "it was resumed");
    // That it is gone by the next look is the new process's end.
    follower.look(&id);
    assert_eq!(status(), RunStatus::Failed);
}

#[test]
fn what_a_person_said_last_is_known_although_the_index_is_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::resolve(Some(folder.path().into()));
    let (id, config): (RunId, _) = ("a-run".parse().unwrap(), presets::find("smoke").unwrap().config);
    data.job(&id, config.clone()).write_config().unwrap();
    let named = |name: &str| About { name: name.into(), ..About::default() };
    // What the index had, what is known, and whether the index is to have it.
    let known = |name: &str| {
        let info = RunInfo { about: named(name), ..RunInfo::new(id.as_str(), &config, 0) };
        let indexed = HashMap::from([(id.clone(), Indexed { info, figures: None, bytes: 0 })]);
        let follower = Follower::open(data.clone(), Arc::new(Gone::default()), indexed).unwrap();
        (follower.known(&id).unwrap().about, follower.changed().len())
    };
    let about = data.run(&id).join("about.json");
    std::fs::write(&about, serde_json::to_vec(&named("new")).unwrap()).unwrap();
    assert_eq!((known("old"), known("new").0), ((named("new"), 1), named("new")));
    std::fs::write(&about, "{").unwrap();
    assert_eq!(known("old").0, named("old"), "what is damaged says nothing");
    std::fs::remove_file(&about).unwrap();
    assert_eq!(known("old"), (named(""), 1));
}

#[test]
fn who_has_a_place_in_the_queue_waits_whatever_index_and_journal_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::resolve(Some(folder.path().into()));
    let (id, config): (RunId, _) = ("a-run".parse().unwrap(), presets::find("smoke").unwrap().config);
    let job = data.job(&id, config.clone());
    job.write_config().unwrap();
    let mut events = journal::Journal::open(job.files.as_ref(), &job.path(journal::FILE)).unwrap();
    events.add(&EventBody::Ended { outcome: Outcome::Paused, message: "paused".into() }).unwrap();
    drop(events);
    let known = |indexed: HashMap<RunId, Indexed>| {
        let follower = Follower::open(data.clone(), Arc::new(Gone::default()), indexed).unwrap();
        follower.known(&id).unwrap()
    };
    let run = known(HashMap::new());
    assert_eq!((run.status, run.message.as_str()), (RunStatus::Paused, ""));
    let bytes = std::fs::metadata(data.run(&id).join(journal::FILE)).unwrap().len();
    let indexed = |status: RunStatus| {
        let info = RunInfo { status, ..run.clone() };
        HashMap::from([(id.clone(), Indexed { info, figures: None, bytes })])
    };
    Place::last(Priority::default(), []).write(&data.run(&id)).unwrap();
    assert_eq!(known(HashMap::new()).status, RunStatus::Queued, "the journal knows nothing of it");
    assert_eq!(known(indexed(RunStatus::Paused)).status, RunStatus::Queued, "the index did not know yet");
    assert_eq!(known(indexed(RunStatus::Finished)).status, RunStatus::Finished, "there is nothing to wait for");
    Place::leave(&data.run(&id)).unwrap();
    assert_eq!(known(indexed(RunStatus::Queued)).status, RunStatus::Interrupted, "it would wait for ever");

    // That a person had it killed is no failure.
    let follower = Follower::open(data.clone(), Arc::new(Gone::default()), HashMap::new()).unwrap();
    std::fs::write(data.run(&id).join(KILLED), "").unwrap();
    follower.expect(&id, &config);
    follower.look(&id);
    let run = follower.known(&id).unwrap();
    assert_eq!((run.status, run.message.starts_with("it was killed; ")), (RunStatus::Interrupted, true), "{}", run.message);
}
