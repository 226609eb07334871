//! A Slurm cluster of two nodes on this machine: a controller and two node daemons, which are gone when this is dropped.

use crate::process::text;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The nodes.
pub const NODES: [&str; 2] = ["n1", "n2"];

/// Controller and nodes. Everything they write is in the folder of their configuration, which `SLURM_CONF` names.
pub struct Cluster {
    folder: PathBuf,
}

/// Runs a command to its end.
fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Cluster {
    /// Starts it, as root: munge's daemon as well, where it does not run.
    ///
    /// # Panics
    /// When `SLURM_CONF` names no file in a folder of its own, or a daemon does not come up.
    pub fn start() -> Self {
        let file = PathBuf::from(std::env::var_os("SLURM_CONF").expect("SLURM_CONF; use `cargo lab test --cluster`"));
        let folder = file.parent().expect("a folder of the configuration").to_path_buf();
        // Jobs of a test that was killed would be taken up again.
        for left in ["state", "spool-n1", "spool-n2"] {
            let _ = fs::remove_dir_all(folder.join(left));
        }
        fs::create_dir_all(folder.join("state")).expect("a folder for the controller");
        let name = run("hostname", &["-s"]).trim().to_string();
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let at = text(&folder);
        let mut lines = vec![
            "ClusterName=lab".to_string(),
            format!("SlurmctldHost={name}(127.0.0.1)"),
            format!("SlurmctldPort={}", free()),
            "SlurmUser=root".into(),
            // What was requeued begins again soon.
            "AuthInfo=cred_expire=10".into(),
            format!("StateSaveLocation={at}/state"),
            format!("SlurmdSpoolDir={at}/spool-%n"),
            format!("SlurmctldPidFile={at}/slurmctld.pid"),
            format!("SlurmdPidFile={at}/%n.pid"),
            format!("SlurmctldLogFile={at}/slurmctld.log"),
            format!("SlurmdLogFile={at}/%n.log"),
            "ProctrackType=proctrack/linuxproc".into(),
            "TaskPlugin=task/none".into(),
            "MpiDefault=none".into(),
            "SelectType=select/cons_tres".into(),
            "SelectTypeParameters=CR_Core".into(),
            "SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0".into(),
            "SlurmdTimeout=10".into(),
            "ReturnToService=2".into(),
            "MinJobAge=3600".into(),
        ];
        for node in NODES {
            lines.push(format!("NodeName={node} NodeHostname={name} NodeAddr=127.0.0.1 Port={} CPUs=1 RealMemory=2000", free()));
        }
        lines.push("PartitionName=lab Nodes=n1,n2 Default=YES State=UP".into());
        fs::write(&file, lines.join("\n") + "\n").expect("the cluster's configuration");
        if run("ps", &["-A", "-o", "comm"]).lines().all(|l| l.trim() != "munged") {
            run("install", &["-d", "-o", "munge", "-g", "munge", "/run/munge"]);
            run("setpriv", &["--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--force"]);
        }
        let cluster = Self { folder };
        cluster.daemon("slurmctld", &[]);
        NODES.iter().for_each(|node| cluster.start_node(node));
        let since = Instant::now();
        while run("sinfo", &["-h", "-o", "%T"]).trim() != "idle" {
            assert!(since.elapsed() < Duration::from_secs(30), "the nodes are not idle: {}", run("sinfo", &[]));
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster
    }

    fn daemon(&self, program: &str, args: &[&str]) {
        let started = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(started.is_ok_and(|s| s.success()), "{program} does not start; see {}", self.folder.display());
    }

    /// Starts the daemon of a node.
    pub fn start_node(&self, node: &str) {
        self.daemon("slurmd", &["-N", node]);
    }

    /// A node is gone from one moment to the next, with everything that ran on it.
    pub fn kill_node(&self, node: &str) {
        self.end(node);
        for daemon in daemons_of_jobs(node) {
            let children = under(&daemon);
            send("-9", &daemon);
            children.iter().for_each(|pid| send("-9", pid));
        }
    }

    /// What runs on a node stands still, as long as the test needs, and no run ends meanwhile.
    pub fn hold(&self, node: &str) {
        daemons_of_jobs(node).iter().flat_map(|daemon| under(daemon)).for_each(|pid| send("-STOP", &pid));
    }

    /// What was held goes on.
    pub fn let_go(&self, node: &str) {
        daemons_of_jobs(node).iter().flat_map(|daemon| under(daemon)).for_each(|pid| send("-CONT", &pid));
    }

    /// The controller is gone from one moment to the next; jobs and nodes go on.
    pub fn kill_controller(&self) {
        self.end("slurmctld");
    }

    /// Has the controller write down all that it knows by now, which it does some seconds after something has changed: whether it has.
    pub fn keeps(&self, task: &str, word: &str) -> bool {
        run("scontrol", &["update", &format!("JobId={task}"), &format!("Comment={word}")]);
        let kept = fs::read(self.folder.join("state/job_state")).unwrap_or_default();
        kept.windows(word.len()).any(|at| at == word.as_bytes())
    }

    /// Starts the controller again, which takes up what it knew, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_controller(&self) {
        self.daemon("slurmctld", &[]);
        let since = Instant::now();
        while Command::new("squeue").stdout(Stdio::null()).stderr(Stdio::null()).status().map_or(true, |s| !s.success()) {
            assert!(since.elapsed() < Duration::from_secs(60), "the controller does not answer");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What an administrator does after a controller has come back: one that has forgotten which jobs it had begun finds them on their nodes,
    /// drains these, and holds what it could not begin a second time.
    pub fn take_into_service(&self) {
        if run("sinfo", &["-h", "-o", "%T"]).contains("drain") {
            // Those that it knows nothing of end first: two would train the same run.
            orphans().iter().for_each(|pid| send("-KILL", pid));
            run("scontrol", &["update", &format!("NodeName={}", NODES.join(",")), "State=RESUME"]);
        }
        let held = run("squeue", &["-h", "-r", "-t", "pending", "-o", "%i|%r"]);
        for line in held.lines().filter(|line| line.contains("held")) {
            run("scontrol", &["release", line.split('|').next().unwrap_or_default()]);
        }
    }

    /// Kills the daemon whose number is in a file.
    fn end(&self, name: &str) {
        let pid = fs::read_to_string(self.folder.join(format!("{name}.pid"))).unwrap_or_default();
        if !pid.trim().is_empty() {
            let _ = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
        }
    }

    /// Tasks of the cluster: job and task, name of the array, state, node.
    pub fn tasks(&self) -> Vec<[String; 4]> {
        let listed = run("squeue", &["-h", "-r", "-t", "all", "-o", "%i|%j|%T|%N"]);
        let task = |line: &str| {
            let parts: Vec<String> = line.split('|').map(str::to_string).collect();
            parts.try_into().unwrap_or_else(|p| panic!("{p:?}"))
        };
        listed.lines().map(task).collect()
    }

    /// Where the daemons write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The processes that run a node's jobs; each is called after the number of its job.
fn daemons_of_jobs(node: &str) -> Vec<String> {
    let jobs = run("squeue", &["-h", "-t", "running,completing", "-w", node, "-o", "%A"]);
    let names: Vec<String> = jobs.lines().map(|job| format!("slurmstepd: [{}.batch]", job.trim())).collect();
    let listed = run("ps", &["-A", "-o", "pid,args"]);
    let runs_a_job = |line: &&str| names.iter().any(|name| line.contains(name));
    listed.lines().filter(runs_a_job).filter_map(|line| Some(line.split_whitespace().next()?.to_string())).collect()
}

/// What runs on nodes for jobs of which the controller says that they do not run, and everything under it.
fn orphans() -> Vec<String> {
    let known: Vec<String> = NODES.iter().flat_map(|node| daemons_of_jobs(node)).collect();
    let listed = run("ps", &["-A", "-o", "pid,args"]);
    let steps = listed.lines().filter(|line| line.contains("slurmstepd: ["));
    let unknown = steps.filter_map(|line| line.split_whitespace().next()).filter(|pid| !known.iter().any(|k| k == pid));
    unknown.flat_map(|pid| [vec![pid.to_string()], under(pid)].concat()).collect()
}

/// Everything under a process, parents first.
fn under(pid: &str) -> Vec<String> {
    let out = Command::new("ps").args(["-o", "pid=", "--ppid", pid]).output().expect("ps");
    let children = String::from_utf8_lossy(&out.stdout).into_owned();
    children.split_whitespace().flat_map(|child| [vec![child.to_string()], under(child)].concat()).collect()
}

/// Sends a signal; a process that has ended needs none.
fn send(signal: &str, pid: &str) {
    let _ = Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status();
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("scancel").args(["--user=root"]).stderr(Stdio::null()).status();
        NODES.iter().for_each(|node| self.kill_node(node));
        self.end("slurmctld");
    }
}
