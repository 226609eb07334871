//! `moslim-lab reindex`: throws the index of runs away and makes it anew from their folders.

use crate::cli::ReindexArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::follow::Follower;
use crate::index::Index;
use crate::launch::Local;
use crate::launch::process::lock_file;
use crate::legacy::export_database;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Makes the index anew.
///
/// # Errors
/// Bad input: a folder that cannot be written, or that a server uses.
pub fn run(args: &ReindexArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    let Some(_lock) = lock_file(&data.lock(), Duration::ZERO)? else {
        return Err(Failure::field("data", format!("a server uses the folder {}; stop it first", data.root().display())));
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(export_database(&data))?;
    Index::remove(&data.index())?;
    let follower = Follower::open(data.clone(), Arc::new(Local::new()?), HashMap::new())?;
    let count = follower.count();
    runtime.block_on(async {
        let index = Index::open(&data.index()).await?;
        index.write(&follower.changed()).await?;
        index.close().await;
        anyhow::Ok(())
    })?;
    if args.json { print_json(&json!({ "runs": count })) } else { print_line(&format!("{count} runs are in the index")) }
}
