//! What the handlers share.

use crate::access::Access;
use crate::devices::Devices;
use crate::folder::DataFolder;
use crate::follow::Follower;
use crate::guard::Hosts;
use crate::inference::Inference;
use crate::launch::Local;
use crate::queue::Slots;
use crate::ready::Ready;
use crate::starts::Starts;
use crate::studies::Studies;
use crate::supervisor::Supervisor;
use moslim_shared::study::Host;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// State of the server.
pub struct App {
    pub data: DataFolder,
    pub follower: Follower,
    /// Frames that were made for one socket and serve others.
    pub ready: Arc<Ready>,
    pub launcher: Arc<Local>,
    pub supervisor: Supervisor,
    pub studies: Studies,
    pub starts: Arc<Starts>,
    pub inference: Inference,
    pub hosts: Arc<Hosts>,
    pub access: Arc<Access>,
    /// Becomes true when the server stops, so that sockets say goodbye.
    pub stopping: watch::Receiver<bool>,
    pub devices: Arc<Devices>,
}

/// The state as handlers get it.
pub type Shared = Arc<App>;

impl App {
    /// State of a server that trains in `slots`, keeps its data in `data`, at most `quota` bytes, sends studies to `clusters` as their profiles have it, answers for `hosts` to whom `access` knows, and stops when `stopping` becomes true.
    pub fn new(
        follower: Follower,
        (launcher, slots): (Arc<Local>, Slots),
        (data, clusters, quota): (DataFolder, Vec<(Host, PathBuf)>, Option<u64>),
        (hosts, access): (Hosts, Arc<Access>),
        stopping: watch::Receiver<bool>,
    ) -> Shared {
        let devices = Arc::new(Devices::new(launcher.clone()));
        let supervisor = Supervisor::new(data.clone(), follower.clone(), launcher.clone(), (devices.clone(), slots));
        let studies = Studies::new(data.clone(), (launcher.clone(), follower.studies()), devices.clone(), clusters);
        let starts = Arc::new(Starts::new(data.clone(), quota));
        let inference = Inference::new(data.clone(), launcher.clone());
        let (hosts, ready) = (Arc::new(hosts), Arc::default());
        Arc::new(Self {
            data,
            follower,
            ready,
            launcher,
            supervisor,
            studies,
            starts,
            inference,
            hosts,
            access,
            stopping,
            devices,
        })
    }
}
