//! What the handlers share.

use crate::folder::DataFolder;
use crate::guard::Hosts;
use crate::store::Store;
use crate::studies::Studies;
use crate::worker::Supervisor;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OnceCell, watch};

/// State of the server.
pub struct App {
    pub store: Store,
    pub supervisor: Supervisor,
    pub studies: Studies,
    pub hosts: Arc<Hosts>,
    /// Becomes true when the server stops, so that sockets say goodbye.
    pub stopping: watch::Receiver<bool>,
    /// Devices do not change while the server runs, and looking for them takes a moment.
    pub devices: OnceCell<Value>,
}

/// The state as handlers get it.
pub type Shared = Arc<App>;

impl App {
    /// State of a server that keeps its data in `data`, answers for `hosts`, and stops when `stopping` becomes true.
    pub fn new(store: Store, data: DataFolder, hosts: Hosts, stopping: watch::Receiver<bool>) -> Shared {
        let supervisor = Supervisor::new(store.clone(), data.clone());
        let studies = Studies::new(data);
        Arc::new(Self { store, supervisor, studies, hosts: Arc::new(hosts), stopping, devices: OnceCell::new() })
    }
}
