//! Checkpoints: a file per stage of a run that holds its step, its models and their optimisers, bit for bit; and the one before it, for
//! when a disk has spoilt the newest.

use super::bundle::{pack, unpack};
use super::{Job, journal};
use anyhow::{Context, Result};
use moslim_shared::event::Stage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use web_time::Instant;

/// Where the stage was, and what it needs besides the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header<T> {
    /// Steps done.
    pub step: usize,
    /// Key of what the stage is made from; a checkpoint of another configuration is not used.
    pub key: String,
    /// Seconds spent on the stage so far.
    pub seconds: f64,
    pub state: T,
}

/// A number that survives JSON bit for bit: it is written as its bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Exact(pub f64);

impl From<u64> for Exact {
    fn from(bits: u64) -> Self {
        Self(f64::from_bits(bits))
    }
}

impl From<Exact> for u64 {
    fn from(exact: Exact) -> Self {
        exact.0.to_bits()
    }
}

/// Model and optimiser of everything that a stage trains, in order.
pub type Parts = Vec<(Vec<u8>, Vec<u8>)>;

/// The file of a stage's checkpoint, in its run's folder.
pub fn file(stage: Stage) -> String {
    format!("checkpoint-{}.bin", stage.id())
}

/// The file of the checkpoint before it.
pub fn older(stage: Stage) -> String {
    format!("checkpoint-{}-older.bin", stage.id())
}

/// Writes the checkpoint of a stage; the one before is kept beside it.
///
/// # Errors
/// When it cannot be written; the one before stays then.
pub fn save<T: Serialize>(job: &Job, stage: Stage, header: &Header<T>, parts: &Parts) -> Result<()> {
    let parts: Vec<&[u8]> = parts.iter().flat_map(|(model, optimizer)| [model.as_slice(), optimizer]).collect();
    // They carry checksums of their own.
    let (newest, before) = (job.path(&file(stage)), job.path(&older(stage)));
    let packed = pack(header, &parts)?;
    // After a power cut the journal must not know less than the checkpoint: what it lacks would never be said again.
    let told = job.path(journal::FILE);
    job.files.settle(&told).with_context(|| format!("writing {}", job.files.describe(&told)))?;
    job.files.rename(&newest, &before).with_context(|| format!("writing {}", job.files.describe(&before)))?;
    job.files.write(&newest, &packed).with_context(|| format!("writing {}", job.files.describe(&newest)))
}

/// File of a run's folder by which a checkpoint is asked for: whoever can write there can ask, on this machine or another that shares the
/// folder.
pub const WANTED: &str = "checkpoint.wanted";
/// File of a run's folder by which who tells the run to stop says that it is for a while: the run has been paused then. It is gone when the
/// next process takes the folder.
pub const PAUSE: &str = "pause.wanted";
/// How often a wish for a checkpoint is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Looks for people who want a checkpoint now.
pub struct Wanted(Instant);

impl Wanted {
    /// Nobody wants one of a stage that begins.
    pub fn none(job: &Job) -> Self {
        let _ = job.files.remove(&job.path(WANTED));
        Self(Instant::now())
    }

    /// Whether somebody wants one; who was heard is forgotten.
    pub fn heard(&mut self, job: &Job) -> bool {
        if self.0.elapsed() < LOOK {
            return false;
        }
        self.0 = Instant::now();
        let path = job.path(WANTED);
        // What cannot be removed would be heard for ever.
        matches!(job.files.read(&path), Ok(Some(_))) && job.files.remove(&path).is_ok()
    }
}

/// The newest checkpoint of a stage that is whole, or `None` when there is none or it belongs to another configuration. `note` is told
/// where the newest is not whole.
///
/// # Errors
/// When there are some and none is whole; the message names the file.
pub fn load<T: DeserializeOwned>(
    job: &Job,
    stage: Stage,
    key: &str,
    note: &mut dyn FnMut(String),
) -> Result<Option<(Header<T>, Parts)>> {
    let newest = load_file(job, &file(stage), key);
    match newest {
        Ok(Some(_)) => newest,
        // A crash between the two steps of saving leaves only the one before.
        Ok(None) => load_file(job, &older(stage), key),
        Err(error) => match load_file(job, &older(stage), key) {
            Ok(Some(found)) => {
                note(format!("{error:#}; the run goes on from the checkpoint before it"));
                // The next one that is kept would put it in the place of the sound one. What could not be read just now may be sound.
                let newest = job.path(&file(stage));
                let bytes = job.files.read(&newest).ok().flatten();
                if bytes.is_some_and(|bytes| unpack::<Header<serde_json::Value>>(&bytes).is_err()) {
                    job.files.remove(&newest).with_context(|| format!("removing {}", job.files.describe(&newest)))?;
                }
                Ok(Some(found))
            }
            _ => Err(error),
        },
    }
}

/// A checkpoint that was made from `key`, of a file in the run's folder; `None` where there is none, or it was made from something else.
///
/// # Errors
/// When it is damaged; the message names the file.
pub fn load_file<T: DeserializeOwned>(job: &Job, file: &str, key: &str) -> Result<Option<(Header<T>, Parts)>> {
    let name = job.describe(file);
    let Some(bytes) = job.files.read(&job.path(file)).with_context(|| format!("reading {name}"))? else { return Ok(None) };
    let read = || -> Result<Option<(Header<T>, Parts)>> {
        // Another configuration may keep something else there: whose it is comes first.
        let (header, parts): (Header<serde_json::Value>, _) = unpack(&bytes)?;
        if header.key != key {
            return Ok(None);
        }
        let state = serde_json::from_value(header.state).context("its state")?;
        let header = Header { step: header.step, key: header.key, seconds: header.seconds, state };
        let mut parts = parts.into_iter();
        let pairs = std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect();
        Ok(Some((header, pairs)))
    };
    read().with_context(|| format!("the checkpoint {name} is damaged; remove it to begin the stage again"))
}

/// Removes the checkpoints of a stage, if there are some. What they were for is kept elsewhere by now, so a failure costs a file.
pub fn remove(job: &Job, stage: Stage) {
    let _ = job.files.remove(&job.path(&file(stage)));
    let _ = job.files.remove(&job.path(&older(stage)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::{Files, Memory};
    use moslim_shared::config::RunConfig;
    use std::sync::Arc;

    #[test]
    fn checkpoints_come_back_bit_for_bit_and_damage_is_named() {
        let files = Arc::new(Memory::default());
        let job = Job::new("a", RunConfig::default(), files.clone());
        let state: Vec<Exact> = (1..200).map(|i| Exact((i as f64).sqrt() / 3.0)).collect();
        let header = Header { step: 7, key: "key".into(), seconds: 1.5, state: state.clone() };
        let parts = vec![(vec![1, 2, 3], vec![4]), (vec![5], vec![])];
        let load = |stage, key: &str| super::load::<Vec<Exact>>(&job, stage, key, &mut |note| panic!("{note}"));
        save(&job, Stage::Policy, &header, &parts).unwrap();
        let (back, kept) = load(Stage::Policy, "key").unwrap().unwrap();
        assert_eq!((back.step, back.seconds, back.state, kept), (7, 1.5, state.clone(), parts.clone()));
        assert!(load(Stage::Policy, "another").unwrap().is_none());
        let other = super::load::<std::collections::BTreeMap<String, f64>>(&job, Stage::Policy, "another", &mut |_| {}).unwrap();
        assert!(other.is_none(), "what another configuration keeps is not read");
        assert!(load(Stage::PreferenceSft, "key").unwrap().is_none());
        let path = job.path("checkpoint-policy.bin");
        let damage = |path: &str| {
            let mut bytes = files.read(path).unwrap().unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            files.write(path, &bytes).unwrap();
        };
        damage(&path);
        let error = format!("{:#}", load(Stage::Policy, "key").unwrap_err());
        assert!(error.contains("checkpoint-policy.bin") && error.contains("checksum"), "{error}");

        // With one before it, the run goes on from there, and says so.
        let at = |step| Header { step, key: "key".into(), seconds: 1.5, state: state.clone() };
        for step in [10, 20] {
            save(&job, Stage::Policy, &at(step), &parts).unwrap();
        }
        assert_eq!(load(Stage::Policy, "key").unwrap().unwrap().0.step, 20);
        damage(&path);
        let mut said = String::new();
        let found = super::load::<Vec<Exact>>(&job, Stage::Policy, "key", &mut |note| said = note).unwrap().unwrap();
        assert_eq!(found.0.step, 10);
        assert!(said.contains("checksum") && said.contains("the checkpoint before it"), "{said}");
        // The next one that is kept leaves the sound one alone, not the damaged one.
        save(&job, Stage::Policy, &at(30), &parts).unwrap();
        damage(&path);
        let found = super::load::<Vec<Exact>>(&job, Stage::Policy, "key", &mut |_| {}).unwrap().unwrap();
        assert_eq!(found.0.step, 10);
        // A crash after the older one was put aside, and before the newest was written.
        files.remove(&path).unwrap();
        assert_eq!(load(Stage::Policy, "key").unwrap().unwrap().0.step, 10);
        remove(&job, Stage::Policy);
        assert!(load(Stage::Policy, "key").unwrap().is_none() && files.list("runs/a").unwrap().is_empty());
    }
}
