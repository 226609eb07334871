//! Weights as safetensors. Of a model whose weights are frozen under adapters, what is trained: adapters, added tags and heads.

use anyhow::{Result, anyhow, bail};
use burn::prelude::*;
use burn_store::{ModuleSnapshot, SafetensorsStore};

/// Says of a tensor's path, and of what its module is, whether it is trained.
type Trained = fn(&str, &str) -> bool;

/// Whether a tensor is a weight of the decoder itself, whose paths begin with `trunk`.
fn is_decoders(trunk: &str, path: &str) -> bool {
    path.strip_prefix(trunk).is_some_and(|own| ["embedding", "norm", "head"].contains(&own) || own.starts_with("layers."))
}

/// What is trained of a model with adapters; `None` where it has none, and all of it is. A head beside a trunk is not the decoder's.
fn trained<B: Backend, M: Module<B> + ModuleSnapshot<B>>(model: &M) -> Option<Trained> {
    let paths: Vec<String> = model.collect(None, None, false).iter().map(|tensor| tensor.full_path()).collect();
    let on_trunk = paths.iter().any(|path| path.starts_with("trunk."));
    let trained: Trained = if on_trunk { |path, _| !is_decoders("trunk.", path) } else { |path, _| !is_decoders("", path) };
    paths.iter().any(|path| path.contains("adapters.")).then_some(trained)
}

/// The model's weights as safetensors.
///
/// # Errors
/// When they cannot be collected.
pub fn to_safetensors<B: Backend, M: Module<B> + ModuleSnapshot<B>>(model: &M) -> Result<Vec<u8>> {
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata();
    if let Some(trained) = trained::<B, M>(model) {
        store = store.with_predicate(trained);
    }
    model.save_into(&mut store).map_err(|e| anyhow!("collecting weights: {e}"))?;
    store.get_bytes().map_err(|e| anyhow!("collecting weights: {e}"))
}

/// Loads weights into a model of the same shape. An adapted model keeps its frozen weights.
///
/// # Errors
/// When a tensor is missing, has another shape, or has no place among adapters; when the bytes are not safetensors.
pub fn from_safetensors<B: Backend, M: Module<B> + ModuleSnapshot<B>>(mut model: M, bytes: Vec<u8>) -> Result<M> {
    let trained = trained::<B, M>(&model);
    let mut store = SafetensorsStore::from_bytes(Some(bytes)).allow_partial(trained.is_some());
    let applied = model.load_from(&mut store).map_err(|e| anyhow!("reading weights: {e}"))?;
    if let Some((path, _)) = applied.missing.iter().find(|(path, _)| trained.is_none_or(|trained| trained(path, ""))) {
        bail!("reading weights: the tensor {path} is missing");
    }
    // Half of what was learnt would be another model.
    if let Some(path) = applied.unused.iter().find(|path| trained.is_some_and(|trained| trained(path, ""))) {
        bail!("reading weights: the tensor {path} has no place; the model has adapters on other matrices, or no tags of its own");
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::adapter::AdapterConfig;
    use crate::model::transformer::Transformer;
    use burn::backend::Flex;
    use moslim_shared::config::{AdapterTarget, ModelConfig};

    fn model(seed: u64) -> Transformer<Flex> {
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        Transformer::new(&config, 50, 40, seed, &Default::default())
    }

    #[test]
    fn what_is_trained_is_kept_and_the_rest_is_left_alone() {
        let config = AdapterConfig { rank: 2, ..Default::default() };
        let (first, second) = (model(3).adapted(&config, 1), model(3).adapted(&config, 2));
        let bytes = to_safetensors::<Flex, _>(&second).unwrap();
        assert!(bytes.len() < to_safetensors::<Flex, _>(&model(3)).unwrap().len() / 2);
        let loaded = from_safetensors(first, bytes.clone()).unwrap();
        assert_eq!(to_safetensors::<Flex, _>(&loaded).unwrap(), bytes);
        let embedding = |m: &Transformer<Flex>| m.embedding.val().into_data().to_vec::<f32>().unwrap();
        assert_eq!(embedding(&loaded), embedding(&model(3)));
        // Neither can be read as the other.
        assert!(from_safetensors(model(3), bytes).is_err());
        let whole = to_safetensors::<Flex, _>(&model(3)).unwrap();
        let error = from_safetensors(model(3).adapted(&config, 1), whole).unwrap_err().to_string();
        assert!(error.contains("adapters"), "{error}");
    }

    #[test]
    fn what_was_learnt_on_other_matrices_is_refused() {
        use AdapterTarget::{KProj, OProj, QProj, VProj};
        let on = |targets: &[AdapterTarget]| {
            model(3).adapted(&AdapterConfig { rank: 2, targets: targets.to_vec(), ..Default::default() }, 1)
        };
        let read = |into: &[AdapterTarget], of: &[AdapterTarget]| {
            from_safetensors(on(into), to_safetensors::<Flex, _>(&on(of)).unwrap()).map(drop).map_err(|e| e.to_string())
        };
        assert_eq!(read(&[QProj, VProj], &[QProj, VProj]), Ok(()));
        let fewer = read(&[QProj], &[QProj, OProj]).unwrap_err();
        assert!(fewer.contains("attention_out") && fewer.contains("has no place"), "{fewer}");
        let more = read(&[QProj, OProj], &[QProj]).unwrap_err();
        assert!(more.contains("attention_out") && more.contains("is missing"), "{more}");
        assert!(read(&[QProj], &[QProj, KProj]).is_err() && read(&[QProj, KProj], &[KProj]).is_err());
    }
}
