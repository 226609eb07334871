//! Weights on disk: safetensors, written whole or not at all.

use anyhow::{Context, Result, anyhow};
use burn::prelude::*;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use std::io::Write;
use std::path::Path;

/// Writes `bytes` so that `path` holds either all of them or what it held before, even after a crash.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or_else(|| anyhow!("{} has no folder", path.display()))?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let name = path.file_name().ok_or_else(|| anyhow!("{} has no file name", path.display()))?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // The folder's entry must reach the disk too.
        #[cfg(unix)]
        std::fs::File::open(folder)?.sync_all()?;
        std::io::Result::Ok(())
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// The model's weights as safetensors.
pub fn to_safetensors<B: Backend, M: Module<B> + ModuleSnapshot<B>>(model: &M) -> Result<Vec<u8>> {
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata();
    model.save_into(&mut store).map_err(|e| anyhow!("collecting weights: {e}"))?;
    store.get_bytes().map_err(|e| anyhow!("collecting weights: {e}"))
}

/// Loads weights into a model of the same shape.
///
/// # Errors
/// When a tensor is missing, has another shape, or the bytes are not safetensors.
pub fn from_safetensors<B: Backend, M: Module<B> + ModuleSnapshot<B>>(mut model: M, bytes: Vec<u8>) -> Result<M> {
    let mut store = SafetensorsStore::from_bytes(Some(bytes));
    model.load_from(&mut store).map_err(|e| anyhow!("reading weights: {e}"))?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::write_atomically;

    #[test]
    fn files_are_replaced_whole() {
        let folder = std::env::temp_dir().join(format!("moslim-store-{}", std::process::id()));
        let path = folder.join("runs").join("config.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
