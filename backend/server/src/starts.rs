//! What is asked of who starts something: not too often, not the same thing twice by mistake, and not beyond what the lab's folder may
//! hold.

use crate::access::Person;
use crate::error::Error;
use crate::folder::{DataFolder, bytes_in, write_file};
use crate::id::{RunId, now_ms};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use moslim_engine::keep::bundle::sha256;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Held, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, MutexGuard};

/// Header by which a request says that it is the same as an earlier one that had the same key.
pub const KEY: &str = "idempotency-key";
/// Longest key.
const LONGEST_KEY: usize = 128;
/// Time that a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// What one person may start in [`WINDOW`].
const MOST: usize = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// Time that the size of the folder is taken for known.
const MEASURED: Duration = Duration::from_secs(60);

/// Looks at every start.
pub struct Starts {
    data: DataFolder,
    /// Bytes that the data folder may hold.
    quota: Option<u64>,
    recent: Held<HashMap<String, VecDeque<Instant>>>,
    size: Held<Option<(Instant, u64)>>,
    /// Held from the look for a key until what it starts is there.
    keyed: Mutex<()>,
}

/// What a key has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// SHA-256 of what was sent.
    sent: String,
    id: String,
}

/// A start under a key.
pub struct Keyed<'a> {
    file: PathBuf,
    sent: String,
    _held: MutexGuard<'a, ()>,
}

impl Starts {
    /// Of a data folder that may hold `quota` bytes. Forgets keys of days ago.
    pub fn new(data: DataFolder, quota: Option<u64>) -> Self {
        for entry in fs::read_dir(data.starts()).into_iter().flatten().flatten() {
            let at = entry.metadata().and_then(|m| m.modified()).ok();
            if at.is_some_and(|at| is_old(at, SystemTime::now())) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Self { data, quota, recent: Held::default(), size: Held::default(), keyed: Mutex::default() }
    }

    /// Lets `person` start one more thing.
    ///
    /// # Errors
    /// [`Error::Busy`] where there were too many within a minute, [`Error::Conflict`] where the folder is full.
    pub async fn admit(self: &Arc<Self>, person: &Person) -> Result<(), Error> {
        self.count(person)?;
        let own = self.clone();
        tokio::task::spawn_blocking(move || own.check_quota()).await.map_err(anyhow::Error::from)?
    }

    fn count(&self, person: &Person) -> Result<(), Error> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        admit(recent.entry(person.name.clone()).or_default(), Instant::now()).map_err(|wait| {
            Error::Busy(format!(
                "{} has started {MOST} runs and studies within a minute; try again in {} seconds",
                person.name,
                wait.as_secs() + 1
            ))
        })
    }

    /// Starts something for `person`: what an earlier request has started under the same key, as `find` knows it, or what `start` makes of a
    /// fresh name.
    ///
    /// # Errors
    /// Those of [`Self::keyed`], of [`Self::admit`] and of `start`, after which the key is free.
    pub async fn once<T, F: Future<Output = Option<T>>, S: Future<Output = Result<T, Error>>>(
        self: &Arc<Self>,
        (headers, person): (&HeaderMap, &Person),
        sent: &(impl Serialize + Sync),
        find: impl FnOnce(RunId) -> F,
        start: impl FnOnce(RunId) -> S,
    ) -> Result<(StatusCode, Json<T>), Error> {
        let (key, earlier) = self.keyed(headers, person, sent).await?.unzip();
        if let Some(earlier) = earlier.flatten()
            && let Some(known) = find(earlier).await
        {
            return Ok((StatusCode::OK, Json(known)));
        }
        self.admit(person).await?;
        let id = RunId::fresh();
        if let Some(key) = &key {
            key.note(&id)?;
        }
        let started = start(id).await;
        if let (Err(_), Some(key)) = (&started, &key) {
            key.forget();
        }
        started.map(|started| (StatusCode::CREATED, Json(started)))
    }

    /// The key of a request, with what an earlier request started under it, if there was one. `sent`: what the request carries.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a key that is none, [`Error::Conflict`] where the earlier request was another one.
    pub async fn keyed(
        &self,
        headers: &HeaderMap,
        person: &Person,
        sent: &impl Serialize,
    ) -> Result<Option<(Keyed<'_>, Option<RunId>)>, Error> {
        let Some(key) = headers.get(KEY) else { return Ok(None) };
        let fits = |key: &&str| (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        let key = key.to_str().ok().filter(fits).ok_or_else(|| {
            Error::BadRequest(format!("the Idempotency-Key header must have 1 to {LONGEST_KEY} visible ASCII characters"))
        })?;
        let sent = sha256(&[&serde_json::to_vec(sent).map_err(anyhow::Error::from)?]);
        let file = self.data.starts().join(format!("{}.json", sha256(&[person.name.as_bytes(), b"\n", key.as_bytes()])));
        let held = self.keyed.lock().await;
        let at = fs::metadata(&file).and_then(|m| m.modified()).ok();
        let noted: Option<Noted> = match at {
            Some(at) if !is_old(at, SystemTime::now()) => fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()),
            _ => None,
        };
        let keyed = Keyed { file, sent, _held: held };
        match noted {
            Some(noted) if noted.sent != keyed.sent => Err(Error::Conflict(
                "another request had this Idempotency-Key and asked for something else; take a new key".into(),
            )),
            noted => Ok(Some((keyed, noted.and_then(|n| n.id.parse().ok())))),
        }
    }

    /// The folder holds less than it did: how much is looked at again before the next start.
    pub fn measure_again(&self) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the folder holds less than it may; blocks on the disk now and then.
    fn check_quota(&self) -> Result<(), Error> {
        let Some(quota) = self.quota else { return Ok(()) };
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let used = match *size {
            Some((at, used)) if at.elapsed() < MEASURED => used,
            _ => size.insert((Instant::now(), bytes_in(self.data.root()))).1,
        };
        if used < quota {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        Err(Error::Conflict(format!(
            "the lab's folder holds {} MiB, and {} MiB are what it may hold; delete runs that nobody needs, and empty the trash: \
             moslim-lab runs trash --empty, or DELETE /api/v1/trash",
            mib(used),
            mib(quota)
        )))
    }
}

impl Keyed<'_> {
    /// Writes down what is about to be started, before it is: who asks again after a crash finds it, or starts it then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, id: &RunId) -> anyhow::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        write_file(&self.file, &serde_json::to_vec(&Noted { sent: self.sent.clone(), id: id.to_string() })?)
    }

    /// It could not be started: the key is free.
    pub fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Whether what was written `at` is forgotten `now`. A clock that went back makes nothing old.
fn is_old(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|age| age >= REMEMBERED)
}

/// Lets one more start pass `now`, or says how long to wait.
fn admit(times: &mut VecDeque<Instant>, now: Instant) -> Result<(), Duration> {
    while times.front().is_some_and(|&at| now.duration_since(at) >= WINDOW) {
        times.pop_front();
    }
    match times.front() {
        Some(&first) if times.len() >= MOST => Err(WINDOW.saturating_sub(now.duration_since(first))),
        _ => {
            times.push_back(now);
            Ok(())
        }
    }
}

/// Runs that are older than `age` and may go. `runs`: each with when it was made (milliseconds since the Unix epoch), and whether it may.
pub fn outdated(runs: impl Iterator<Item = (RunId, u64, bool)>, age: Duration) -> Vec<RunId> {
    let oldest = now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    runs.filter(|(_, created, may_go)| *may_go && *created < oldest).map(|(id, ..)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::keys::Role;

    #[test]
    fn starts_are_counted_for_a_minute() {
        let (mut times, began) = (VecDeque::new(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!((0..MOST as u64).all(|n| admit(&mut times, at(n / 10)).is_ok()));
        assert_eq!(admit(&mut times, at(20)), Err(Duration::from_secs(40)));
        // Ten were of the first second.
        assert!((0..10).all(|_| admit(&mut times, at(60)).is_ok()) && admit(&mut times, at(60)).is_err());
    }

    #[tokio::test]
    async fn a_key_starts_one_thing_once_also_after_a_crash_and_for_one_person() {
        let root = std::env::temp_dir().join(format!("moslim-starts-{}", std::process::id()));
        let data = DataFolder::resolve(Some(root.clone()));
        let person = |name: &str| Person { name: name.into(), role: Role::Run };
        let headers = |key: &str| HeaderMap::from_iter([(KEY.parse().unwrap(), key.parse().unwrap())]);
        let starts = Starts::new(data.clone(), None);
        let id = RunId::fresh();
        {
            let (keyed, earlier) = starts.keyed(&headers("a"), &person("Ada"), &[1]).await.unwrap().unwrap();
            assert_eq!(earlier, None);
            keyed.note(&id).unwrap();
        }
        // Another process, after the first has gone.
        let starts = Starts::new(data, None);
        let earlier = async |key: &str, name: &str, sent: u8| {
            starts.keyed(&headers(key), &person(name), &[sent]).await.map(|k| k.unwrap().1).map_err(|e| e.to_string())
        };
        assert_eq!(earlier("a", "Ada", 1).await, Ok(Some(id)));
        assert_eq!((earlier("b", "Ada", 1).await, earlier("a", "Bob", 1).await), (Ok(None), Ok(None)));
        assert!(earlier("a", "Ada", 2).await.unwrap_err().contains("something else"));
        for key in [String::new(), "a b".into(), "x".repeat(LONGEST_KEY + 1)] {
            assert!(starts.keyed(&headers(&key), &person("Ada"), &[1]).await.is_err(), "{key}");
        }
        assert!(starts.keyed(&HeaderMap::new(), &person("Ada"), &[1]).await.unwrap().is_none());
        starts.keyed(&headers("a"), &person("Ada"), &[1]).await.unwrap().unwrap().0.forget();
        assert_eq!(earlier("a", "Ada", 1).await, Ok(None));
        let now = SystemTime::now();
        assert!(is_old(now - REMEMBERED, now) && !is_old(now - REMEMBERED / 2, now) && !is_old(now + REMEMBERED, now));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_a_folder_holds_is_counted_to_its_depth() {
        let root = std::env::temp_dir().join(format!("moslim-quota-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), vec![0; 3 << 20]).unwrap();
        fs::write(root.join("d"), [0; 10]).unwrap();
        assert_eq!(bytes_in(&root), (3 << 20) + 10);
        let data = DataFolder::resolve(Some(root.clone()));
        assert!(Starts::new(data.clone(), None).check_quota().is_ok());
        assert!(Starts::new(data.clone(), Some(4 << 20)).check_quota().is_ok());
        let error = Starts::new(data, Some(3 << 20)).check_quota().unwrap_err().to_string();
        assert!(error.contains("holds 3 MiB, and 3 MiB"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_old_and_nobody_wants_is_outdated() {
        let day = Duration::from_secs(24 * 3600);
        let before = |days: u64| now_ms() - days * 24 * 3_600_000;
        let [a, b, c] = [RunId::fresh(), RunId::fresh(), RunId::fresh()];
        let runs = [(a.clone(), before(3), true), (b, before(3), false), (c, before(1), true)];
        assert_eq!(outdated(runs.into_iter(), 2 * day), [a]);
    }
}
