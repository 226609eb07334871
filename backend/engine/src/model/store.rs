//! Weights as safetensors.

use anyhow::{Result, anyhow};
use burn::prelude::*;
use burn_store::{ModuleSnapshot, SafetensorsStore};

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
