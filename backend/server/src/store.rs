//! The journal: runs and their events in SQLite. What is announced is on disk by then.

use crate::id::{RunId, now_ms};
use anyhow::{Context, Result, bail};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Event, EventBody, Outcome, RunInfo, RunStatus};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};

/// Announcements kept for a slow listener. One that falls further behind is told so and reads the journal.
const NEWS: usize = 256;

/// Says that the journal of a run has grown. It carries no events: a listener reads them from the journal, so there is
/// one way to get events, live or late, and none can be lost or come twice.
#[derive(Debug, Clone)]
pub struct News {
    pub run: RunId,
    /// Whether the run's state (status, message, summary) changed too.
    pub state_changed: bool,
}

/// The journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// Held by the one writer, so that reading a sequence number and advancing it are one step.
    writing: Arc<Mutex<()>>,
    news: broadcast::Sender<News>,
}

impl Store {
    /// Opens the database, and makes it if it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Readers and the writer do not wait for each other.
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode a commit then survives the death of this process, kill -9 included, without a disk flush for
            // each of up to fifty commits a second. A power cut may take the last commits, never the database's
            // consistency; a page that knew more than the journal is sent a snapshot and starts again.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.context("opening the database")?;
        sqlx::migrate!().run(&pool).await.context("preparing the database")?;
        Ok(Self { pool, writing: Arc::default(), news: broadcast::channel(NEWS).0 })
    }

    /// Announcements from now on.
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Adds a run, running and without events.
    ///
    /// # Errors
    /// When the run exists or the database fails.
    pub async fn insert(&self, id: &RunId, config: &RunConfig) -> Result<()> {
        let _writing = self.writing.lock().await;
        sqlx::query("INSERT INTO runs (id, name, preset, seed, status, created, config) VALUES (?, ?, ?, ?, 'running', ?, ?)")
            .bind(id.as_str())
            .bind(&config.name)
            .bind(&config.preset)
            .bind(signed(config.seed))
            .bind(signed(now_ms()))
            .bind(serde_json::to_string(config)?)
            .execute(&self.pool)
            .await
            .with_context(|| format!("adding run {id}"))?;
        Ok(())
    }

    /// Marks a run as running again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reopen(&self, id: &RunId) -> Result<()> {
        let writing = self.writing.lock().await;
        sqlx::query("UPDATE runs SET status = 'running', message = '' WHERE id = ?")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .with_context(|| format!("reopening run {id}"))?;
        drop(writing);
        self.announce(id, true);
        Ok(())
    }

    /// Appends events in one transaction, numbers them without a gap, and announces them once they are committed.
    ///
    /// # Errors
    /// When the run is unknown or the database fails; nothing is appended then.
    pub async fn append(&self, id: &RunId, bodies: &[EventBody]) -> Result<()> {
        if bodies.is_empty() {
            return Ok(());
        }
        let writing = self.writing.lock().await;
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("SELECT last_seq FROM runs WHERE id = ?").bind(id.as_str()).fetch_optional(&mut *transaction);
        let Some(row) = row.await? else { bail!("run {id} is not in the database") };
        let mut seq: i64 = row.try_get("last_seq")?;
        let mut state_changed = false;
        for body in bodies {
            seq += 1;
            sqlx::query("INSERT INTO events (run, seq, time, body) VALUES (?, ?, ?, ?)")
                .bind(id.as_str())
                .bind(seq)
                .bind(signed(now_ms()))
                .bind(serde_json::to_string(body)?)
                .execute(&mut *transaction)
                .await?;
            match body {
                EventBody::Summary { summary } => {
                    state_changed = true;
                    sqlx::query("UPDATE runs SET summary = ? WHERE id = ?")
                        .bind(serde_json::to_string(summary)?)
                        .bind(id.as_str())
                        .execute(&mut *transaction)
                        .await?;
                }
                EventBody::Ended { outcome, message } => {
                    state_changed = true;
                    let told = matches!(outcome, Outcome::Failed | Outcome::Interrupted);
                    sqlx::query("UPDATE runs SET status = ?, message = ? WHERE id = ?")
                        .bind(status_name((*outcome).into()))
                        .bind(if told { message.as_str() } else { "" })
                        .bind(id.as_str())
                        .execute(&mut *transaction)
                        .await?;
                }
                _ => {}
            }
        }
        sqlx::query("UPDATE runs SET last_seq = ? WHERE id = ?").bind(seq).bind(id.as_str()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        drop(writing);
        self.announce(id, state_changed);
        Ok(())
    }

    /// Ends every run that is marked as running: after a start of the server none is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn interrupt_running(&self) -> Result<()> {
        let rows = sqlx::query("SELECT id FROM runs WHERE status = 'running'").fetch_all(&self.pool).await?;
        for row in rows {
            let id: RunId = row.try_get::<String, _>("id")?.parse().map_err(anyhow::Error::msg)?;
            let message = "the server stopped while this run was training; resume it to go on from its last checkpoint";
            let ended = EventBody::Ended { outcome: Outcome::Interrupted, message: message.to_string() };
            self.append(&id, &[ended]).await?;
        }
        Ok(())
    }

    /// A run, if it exists.
    ///
    /// # Errors
    /// When the database fails or the run was written by another version.
    pub async fn run(&self, id: &RunId) -> Result<Option<RunInfo>> {
        let row = sqlx::query("SELECT * FROM runs WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(read_run).transpose()
    }

    /// All runs, newest first, without touching the journal.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn runs(&self) -> Result<Vec<RunInfo>> {
        let rows = sqlx::query("SELECT * FROM runs ORDER BY created DESC, id DESC").fetch_all(&self.pool).await?;
        // One run of another version must not hide the others.
        let readable = |row| read_run(row).inspect_err(|e| tracing::warn!("a run is left out of the list: {e:#}")).ok();
        Ok(rows.iter().filter_map(readable).collect())
    }

    /// At most `limit` events after the sequence number `after`, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&self, id: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let rows = sqlx::query("SELECT seq, time, body FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?")
            .bind(id.as_str())
            .bind(signed(after))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read_event).collect()
    }

    /// Closes the database, which folds the write-ahead log into it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn announce(&self, id: &RunId, state_changed: bool) {
        // An error says that nobody listens, which is fine.
        let _ = self.news.send(News { run: id.clone(), state_changed });
    }
}

fn read_run(row: &SqliteRow) -> Result<RunInfo> {
    let id: String = row.try_get("id")?;
    let config: String = row.try_get("config")?;
    let config = serde_json::from_str(&config).with_context(|| format!("run {id}: reading its configuration"))?;
    let summary: Option<String> = row.try_get("summary")?;
    let summary = summary.and_then(|text| {
        serde_json::from_str(&text).inspect_err(|e| tracing::warn!("run {id}: its summary is of another version: {e}")).ok()
    });
    Ok(RunInfo {
        status: read_status(row.try_get("status")?)?,
        id,
        name: row.try_get("name")?,
        preset: row.try_get("preset")?,
        seed: unsigned(row.try_get("seed")?),
        created: unsigned(row.try_get("created")?),
        last_seq: unsigned(row.try_get("last_seq")?),
        message: row.try_get("message")?,
        config,
        summary,
    })
}

fn read_event(row: &SqliteRow) -> Result<Event> {
    let body: String = row.try_get("body")?;
    // An event of another version keeps its place: readers rely on there being no gap.
    let body = serde_json::from_str(&body)
        .unwrap_or_else(|_| EventBody::Note { text: "(an event of another version, which this one cannot read)".to_string() });
    Ok(Event { seq: unsigned(row.try_get("seq")?), time: unsigned(row.try_get("time")?), body })
}

fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Finished => "finished",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Failed => "failed",
        RunStatus::Interrupted => "interrupted",
    }
}

fn read_status(name: String) -> Result<RunStatus> {
    use RunStatus::{Cancelled, Failed, Finished, Interrupted, Running};
    let all = [Running, Finished, Cancelled, Failed, Interrupted];
    all.into_iter().find(|&s| status_name(s) == name).with_context(|| format!("unknown status {name}"))
}

/// SQLite's integers are signed. What is larger (only a caller's `after` can be) behaves like the largest.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::summary::RunSummary;
    use std::path::PathBuf;

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("moslim-store-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        async fn open(&self) -> Store {
            Store::open(&self.0.join("lab.db")).await.unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn note(text: &str) -> EventBody {
        EventBody::Note { text: text.to_string() }
    }

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|e| e.seq).collect()
    }

    #[tokio::test]
    async fn sequence_numbers_have_no_gap_under_concurrent_writers() {
        let folder = Folder::new("gap");
        let store = folder.open().await;
        for run in ["a", "b"] {
            store.insert(&id(run), &RunConfig::default()).await.unwrap();
        }
        let mut tasks = Vec::new();
        for n in 0..20 {
            let store = store.clone();
            let run = id(if n % 2 == 0 { "a" } else { "b" });
            tasks.push(tokio::spawn(async move { store.append(&run, &[note("1"), note("2"), note("3")]).await }));
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        for run in ["a", "b"] {
            let events = store.events(&id(run), 0, 1000).await.unwrap();
            assert_eq!(numbers(&events), (1..=30).collect::<Vec<_>>());
            assert_eq!(store.run(&id(run)).await.unwrap().unwrap().last_seq, 30);
        }
        assert_eq!(numbers(&store.events(&id("a"), 27, 2).await.unwrap()), [28, 29]);
        assert_eq!(store.events(&id("a"), u64::MAX, 2).await.unwrap(), []);
        assert!(store.append(&id("c"), &[note("x")]).await.is_err(), "an unknown run has no journal");
    }

    #[tokio::test]
    async fn a_reopened_database_goes_on_and_knows_what_was_interrupted() {
        let folder = Folder::new("reopen");
        let store = folder.open().await;
        let finished = EventBody::Ended { outcome: Outcome::Finished, message: "done".into() };
        let summary = EventBody::Summary { summary: RunSummary { seed: 7, ..Default::default() } };
        store.insert(&id("done"), &RunConfig::default()).await.unwrap();
        store.append(&id("done"), &[summary, finished]).await.unwrap();
        store.insert(&id("open"), &RunConfig { seed: 5, name: "five".into(), ..Default::default() }).await.unwrap();
        store.append(&id("open"), &[note("before")]).await.unwrap();
        store.close().await;

        let store = folder.open().await;
        store.interrupt_running().await.unwrap();
        let run = store.run(&id("open")).await.unwrap().unwrap();
        assert_eq!((run.status, run.last_seq, run.seed, run.name.as_str()), (RunStatus::Interrupted, 2, 5, "five"));
        assert!(run.message.contains("resume"), "{}", run.message);
        let events = store.events(&id("open"), 0, 10).await.unwrap();
        assert!(matches!(&events[1].body, EventBody::Ended { outcome: Outcome::Interrupted, .. }));

        let done = store.run(&id("done")).await.unwrap().unwrap();
        assert_eq!((done.status, done.last_seq, done.message.as_str()), (RunStatus::Finished, 2, ""));
        assert_eq!(done.summary.unwrap().seed, 7);
        assert_eq!(store.runs().await.unwrap().len(), 2);

        store.reopen(&id("open")).await.unwrap();
        let run = store.run(&id("open")).await.unwrap().unwrap();
        assert_eq!((run.status, run.message.as_str()), (RunStatus::Running, ""));
    }

    #[tokio::test]
    async fn what_is_announced_can_be_read() {
        let folder = Folder::new("news");
        let store = folder.open().await;
        store.insert(&id("a"), &RunConfig::default()).await.unwrap();
        let mut news = store.listen();
        store.append(&id("a"), &[note("x")]).await.unwrap();
        let heard = news.recv().await.unwrap();
        assert_eq!((heard.run, heard.state_changed), (id("a"), false));
        assert_eq!(store.events(&id("a"), 0, 10).await.unwrap().len(), 1);
    }
}
