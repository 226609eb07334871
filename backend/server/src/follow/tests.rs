//! What a run is taken for while its processes come and go.

use super::*;
use crate::launch::{Ending, Launch};
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
