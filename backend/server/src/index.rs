//! The index of runs: a database, so that a start of the server need not read every journal. It decides nothing, can
//! be thrown away, and is made anew from the folders (`moslim-lab reindex`).

use crate::id::RunId;
use anyhow::{Context, Result};
use moslim_shared::event::RunInfo;
use moslim_shared::listing::Figures;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use std::collections::HashMap;
use std::path::Path;
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
}

/// Raised when what is indexed changes; an index of another version is thrown away.
const VERSION: i64 = 3;

impl Index {
    /// Opens the index; one that is damaged or of another version is thrown away and begun anew.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn open(path: &Path) -> Result<Self> {
        match Self::connect(path).await {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!("the index is made anew: {error:#}");
                Self::remove(path)?;
                Self::connect(path).await
            }
        }
    }

    /// Removes an index.
    ///
    /// # Errors
    /// When a file of it is there and cannot be removed.
    pub fn remove(path: &Path) -> Result<()> {
        for end in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(end);
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.with_context(|| format!("removing {}", Path::new(&file).display()))?,
            }
        }
        Ok(())
    }

    async fn connect(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(Duration::from_secs(2));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.context("opening the index")?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await?;
        if version != VERSION {
            anyhow::ensure!(version == 0, "it is of version {version}");
            sqlx::raw_sql(include_str!("index.sql")).execute(&pool).await.context("preparing the index")?;
        }
        Ok(Self { pool })
    }

    /// Everything in the index. What cannot be read is left out, and read from its folder again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self) -> Result<HashMap<RunId, Indexed>> {
        let rows = sqlx::query("SELECT id, bytes, info, figures FROM runs").fetch_all(&self.pool).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Option<(RunId, Indexed)> {
            let id = row.try_get::<String, _>("id").ok()?.parse().ok()?;
            let info = serde_json::from_str(row.try_get("info").ok()?).ok()?;
            let figures = serde_json::from_str(row.try_get("figures").ok()?).ok()?;
            Some((id, Indexed { info, figures, bytes: u64::try_from(row.try_get::<i64, _>("bytes").ok()?).ok()? }))
        };
        Ok(rows.iter().filter_map(read).collect())
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
