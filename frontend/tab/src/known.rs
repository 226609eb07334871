//! What the files of a run say of it.

use moslim_engine::keep::files::Files;
use moslim_engine::keep::{config_hash, journal, read_config};
use moslim_shared::event::{Event, EventBody, RunInfo, RunStatus};

/// What the files say of a run that does not train.
pub fn known(files: &dyn Files, id: &str) -> Option<RunInfo> {
    let own = |file: &str| files.read(&format!("runs/{id}/{file}"));
    let config = read_config(own).ok()?;
    let mut info = RunInfo { config_hash: config_hash(&config), ..RunInfo::new(id, &config, 0) };
    for event in journal::events(&own(journal::FILE).ok().flatten().unwrap_or_default()) {
        take(&mut info, &event);
    }
    info.about = own("about.json").ok().flatten().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    if info.status == RunStatus::Running {
        info.status = RunStatus::Interrupted;
        info.message = "the tab was closed while it trained; resume it to go on from its last checkpoint".into();
    }
    Some(info)
}

/// Takes in an event of a run that one process writes and ends.
pub fn take(info: &mut RunInfo, event: &Event) {
    info.last_seq = event.seq;
    info.hear(event);
    if matches!(event.body, EventBody::Started { .. }) {
        info.config_hash = config_hash(&info.config);
    }
    if let EventBody::Ended { outcome, message } = &event.body {
        (info.status, info.message) = ((*outcome).into(), message.clone());
    }
}
