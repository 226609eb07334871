//! The devices that this machine can train on, and which of them a run takes.

use crate::launch::Local;
use anyhow::{Context, ensure};
use moslim_shared::config::DeviceChoice;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Time to look for devices. Drivers can take long to wake.
const TIME: Duration = Duration::from_secs(60);

/// Devices do not change while the server runs, and looking for them takes a moment: it is done once.
pub struct Devices {
    launcher: Arc<Local>,
    list: OnceCell<Value>,
    /// What a run takes that leaves it open.
    best: OnceCell<DeviceChoice>,
}

impl Devices {
    /// Those that processes of `launcher` find.
    pub fn new(launcher: Arc<Local>) -> Self {
        Self { launcher, list: OnceCell::new(), best: OnceCell::new() }
    }

    /// All kinds of devices, as `moslim-lab devices --json` lists them.
    ///
    /// # Errors
    /// When they cannot be looked for.
    pub async fn list(&self) -> anyhow::Result<&Value> {
        self.list.get_or_try_init(|| look(self.launcher.program())).await
    }

    /// The device that a run with this choice takes, as its process will find for itself; never [`DeviceChoice::Auto`].
    pub async fn of(&self, choice: DeviceChoice) -> DeviceChoice {
        match choice {
            DeviceChoice::Auto => *self.best.get_or_init(|| self.find_best()).await,
            named => named,
        }
    }

    async fn find_best(&self) -> DeviceChoice {
        match self.list().await {
            Ok(list) => best(list).unwrap_or(DeviceChoice::Cpu),
            Err(error) => {
                tracing::warn!("which device is the best is not known ({error:#}): runs that leave it open wait for the CPU");
                DeviceChoice::Cpu
            }
        }
    }
}

/// The one of a list that is chosen where nobody names one.
fn best(list: &Value) -> Option<DeviceChoice> {
    let chosen = list.as_array()?.iter().find(|device| device["chosen"] == true)?;
    chosen["device"].as_str()?.parse().ok()
}

/// Asks a child process (`devices --json`), because looking for a device loads its driver, and a driver that aborts takes
/// its process with it.
async fn look(program: &Path) -> anyhow::Result<Value> {
    let child = Command::new(program).args(["devices", "--json"]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(TIME, child).await.context("looking for devices took too long")?.context("looking for devices")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "looking for devices failed ({}): {errors:.500}", output.status);
    serde_json::from_slice(&output.stdout).context("reading the list of devices")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_device_of_who_names_none_is_the_one_that_is_chosen() {
        let entry = |device: &str, chosen: bool| json!({ "device": device, "available": true, "chosen": chosen });
        assert_eq!(best(&json!([entry("cuda", false), entry("wgpu", true), entry("cpu", false)])), Some(DeviceChoice::Wgpu));
        assert_eq!((best(&json!([entry("cpu", false)])), best(&json!({}))), (None, None));
    }
}
