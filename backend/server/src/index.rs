//! The index of runs: a database, so that a start of the server need not read every journal. It decides nothing, can
//! be thrown away, and is made anew from the folders (`moslim-lab reindex`).

use crate::id::RunId;
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use moslim_shared::event::RunInfo;
use moslim_shared::listing::Figures;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the index knows of a run.
#[derive(Debug, Clone)]
pub struct Indexed {
    pub info: RunInfo,
    pub figures: Option<Figures>,
    /// Bytes of its journal that this was read from.
    pub bytes: u64,
}

/// The index. Clones share it.
#[derive(Debug, Clone)]
pub struct Index {
    pool: SqlitePool,
    /// Whether it is gone with the program.
    in_memory: bool,
}

/// Raised when what is indexed changes; an index of another version is thrown away.
const VERSION: i64 = 4;

/// Beside the index: the last one that was damaged, for whoever wants to know what happened to it.
const DAMAGED: &str = "index-damaged.db";

/// The index is sound, and of another version of the lab.
#[derive(Debug, thiserror::Error)]
#[error("it is of version {0}")]
struct OtherVersion(i64);

/// The index was read, and is not sound.
#[derive(Debug, thiserror::Error)]
#[error("it is damaged: {0}")]
struct Damaged(String);

/// Whether an error says that the file is no sound database, and not merely that it cannot be had now.
fn is_damage(error: &anyhow::Error) -> bool {
    // SQLITE_CORRUPT and SQLITE_NOTADB, of which the lowest byte tells.
    let tells = |code: &str| code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 11 | 26));
    let of_sqlite = error.downcast_ref::<sqlx::Error>().and_then(|error| error.as_database_error());
    error.is::<Damaged>() || of_sqlite.and_then(|e| e.code()).is_some_and(|code| tells(&code))
}

/// The files of a database: itself, and what SQLite keeps beside it.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        file.into()
    })
}

impl Index {
    /// Opens the index. One of another version is thrown away, one that is damaged set aside; then it is begun anew, empty. Where the file cannot
    /// be had now, because the disk is full or somebody has locked it, it is left as it is, and this one is in memory.
    ///
    /// # Errors
    /// When not even that can be.
    pub async fn open(path: &Path) -> Result<Self> {
        let again = match Self::connect(path).await {
            Ok(index) => return Ok(index),
            Err(error) if error.is::<OtherVersion>() => {
                tracing::warn!("the index is made anew from the runs' folders: {error}");
                Self::remove(path)
            }
            Err(error) if is_damage(&error) => Self::set_aside(path).map(|aside| {
                let kept = format!("it is kept as {}, and made anew from the runs' folders", aside.display());
                tracing::warn!("the index cannot be used ({error:#}); {kept}");
            }),
            Err(error) => Err(error),
        };
        let anew = match again {
            Ok(()) => Self::connect(path).await,
            Err(error) => Err(error),
        };
        match anew {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(
                    "the index cannot be had ({error:#}); this server does without, and the next one reads the runs' folders"
                );
                Self::in_memory().await
            }
        }
    }

    /// Whether the next server has nothing of this index.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// An index that is gone with the program.
    async fn in_memory() -> Result<Self> {
        // Each connection would have a database of its own.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(SqliteConnectOptions::new().in_memory(true)).await.context("an index in memory")?;
        Self::prepare(&pool).await?;
        Ok(Self { pool, in_memory: true })
    }

    /// Removes an index.
    ///
    /// # Errors
    /// When a file of it is there and cannot be removed.
    pub fn remove(path: &Path) -> Result<()> {
        for file in files(path) {
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                removed => removed.with_context(|| format!("removing {}", file.display()))?,
            }
        }
        Ok(())
    }

    /// Moves an index out of the way, in place of the one that was moved before it; returns where it is.
    fn set_aside(path: &Path) -> Result<PathBuf> {
        let aside = path.with_file_name(DAMAGED);
        Self::remove(&aside)?;
        for (from, to) in files(path).iter().zip(&files(&aside)) {
            match std::fs::rename(from, to) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                moved => moved.with_context(|| format!("moving {} to {}", from.display(), to.display()))?,
            }
        }
        Ok(aside)
    }

    async fn connect(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(Duration::from_secs(2));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.context("opening the index")?;
        if let Err(error) = Self::prepare(&pool).await {
            // A connection that is closed later would take away what SQLite keeps beside the next index of this name.
            pool.close().await;
            return Err(error);
        }
        Ok(Self { pool, in_memory: false })
    }

    /// Makes sure that a database is sound and of this version, and gives a new one its table.
    async fn prepare(pool: &SqlitePool) -> Result<()> {
        // A page that is spoilt would otherwise be noticed by whoever reads it, which may be long after. One problem is enough.
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(pool).await.context("checking the index")?;
        if found != "ok" {
            return Err(Damaged(found.replace('\n', " ")).into());
        }
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await?;
        match version {
            VERSION => Ok(()),
            0 => {
                sqlx::raw_sql(include_str!("index.sql")).execute(pool).await.context("preparing the index")?;
                Ok(())
            }
            other => Err(OtherVersion(other).into()),
        }
    }

    /// Everything in the index. What cannot be read is left out, and read from its folder again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self) -> Result<HashMap<RunId, Indexed>> {
        let read = |row: &sqlx::sqlite::SqliteRow| -> Option<(RunId, Indexed)> {
            let id = row.try_get::<String, _>("id").ok()?.parse().ok()?;
            let info = serde_json::from_str(row.try_get("info").ok()?).ok()?;
            let figures = serde_json::from_str(row.try_get("figures").ok()?).ok()?;
            Some((id, Indexed { info, figures, bytes: u64::try_from(row.try_get::<i64, _>("bytes").ok()?).ok()? }))
        };
        // Row by row: the texts of all of them are several times what is made of them.
        let mut rows = sqlx::query("SELECT id, bytes, info, figures FROM runs").fetch(&self.pool);
        let mut all = HashMap::new();
        while let Some(row) = rows.try_next().await? {
            all.extend(read(&row));
        }
        Ok(all)
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// When the database fails; nothing is written then.
    pub async fn write(&self, runs: &[(RunId, Indexed)]) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        let written = Self::write_with(&mut connection, runs).await;
        if written.is_err() {
            // A full disk makes SQLite roll back by itself, after which the connection waits for the end of a transaction that is none.
            connection.close_on_drop();
        }
        written
    }

    async fn write_with(connection: &mut SqliteConnection, runs: &[(RunId, Indexed)]) -> Result<()> {
        // It takes the lock at once: one that began by reading could not wait for it.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for (id, Indexed { info, figures, bytes }) in runs {
            sqlx::query("INSERT OR REPLACE INTO runs (id, bytes, info, figures) VALUES (?, ?, ?, ?)")
                .bind(id.as_str())
                .bind(i64::try_from(*bytes).unwrap_or(i64::MAX))
                .bind(serde_json::to_string(info)?)
                .bind(serde_json::to_string(figures)?)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;

    /// Bytes of a page of the database.
    const PAGE: usize = 4096;

    async fn count(index: &Index) -> usize {
        index.all().await.unwrap().len()
    }

    #[tokio::test]
    async fn a_damaged_index_is_set_aside_and_one_of_another_version_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("index.db"), folder.path().join(DAMAGED));
        let run = |n: u64| {
            let id: RunId = format!("run-{n}").parse().unwrap();
            let info = RunInfo::new(id.as_str(), &RunConfig::default(), n);
            (id, Indexed { info, figures: None, bytes: n })
        };
        let runs: Vec<(RunId, Indexed)> = (0..100).map(run).collect();
        let index = Index::open(&path).await.unwrap();
        index.write(&runs).await.unwrap();
        index.close().await;
        let index = Index::open(&path).await.unwrap();
        assert_eq!((count(&index).await, index.is_in_memory()), (runs.len(), false), "a sound one is taken as it is");
        index.close().await;

        let mut bytes = std::fs::read(&path).unwrap();
        let pages = bytes.len() / PAGE;
        assert!(pages > 20, "{pages}");
        let spoilt = pages / 2 * PAGE..(pages / 2 + 1) * PAGE;
        bytes[spoilt.clone()].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let index = Index::open(&path).await.unwrap();
        assert_eq!(count(&index).await, 0, "nothing of a damaged one is believed");
        index.write(&runs[..3]).await.unwrap();
        index.close().await;
        let kept = std::fs::read(&aside).unwrap();
        assert_eq!((kept.len(), &kept[spoilt.clone()]), (bytes.len(), &bytes[spoilt]));

        // What is no database at all takes the place of the one before.
        std::fs::write(&path, "no database").unwrap();
        let index = Index::open(&path).await.unwrap();
        assert_eq!((count(&index).await, std::fs::read(&aside).unwrap().as_slice()), (0, b"no database".as_slice()));

        std::fs::remove_file(&aside).unwrap();
        index.write(&runs[..3]).await.unwrap();
        sqlx::query("PRAGMA user_version = 2").execute(&index.pool).await.unwrap();
        index.close().await;
        let index = Index::open(&path).await.unwrap();
        assert_eq!((count(&index).await, aside.exists()), (0, false), "it is not damaged");
        index.close().await;
    }

    #[tokio::test]
    async fn where_the_file_cannot_be_had_the_index_is_in_memory_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).await.unwrap();
        assert_eq!((count(&index).await, index.is_in_memory()), (0, true));
    }
}
