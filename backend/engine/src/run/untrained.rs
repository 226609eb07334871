//! A run that has learnt nothing, to be asked: how soon and how fast answers come does not depend on what was learnt.

use super::opened::open_in;
use crate::data::Task;
use crate::keep::{Job, model_file};
use crate::method;
use crate::model::store::to_safetensors;
use anyhow::Result;
use burn::backend::Flex;

/// Writes a run's folder with what is needed to ask its policy, which is as it was drawn, or an off-the-shelf model as it is. There is no
/// reward model.
///
/// # Errors
/// When the configuration does not fit its task or its off-the-shelf model, or something cannot be read or written.
pub fn untrained(job: &Job) -> Result<()> {
    let task = Task::load(&job.config.task, &|path| job.files.read(path))?;
    method::prepare(job, task)?;
    let opened = open_in(job.files.clone(), format!("runs/{}", job.run))?;
    let device = Default::default();
    let trunk = opened.trunk::<Flex>(&device)?;
    let policy = opened.blank(trunk.as_ref(), &device);
    job.write(&model_file("policy", 0), &to_safetensors::<Flex, _>(&policy)?)
}
