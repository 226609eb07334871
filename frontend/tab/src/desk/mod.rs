//! The worker that the page talks to: it keeps the files, answers the requests of the API that a tab can answer, passes on what a run
//! says, and starts and ends the trainer.

mod runs;

use super::asking::{Asking, Request, What};
use super::keep::{self, Place};
use super::known::{known, take};
use super::messages::{Asked, Kept, Said, Told, Training, pack, unpack};
use super::{TRAINER, scope, why_broken};
use moslim_engine::data::Task;
use moslim_engine::keep::carried;
use moslim_engine::keep::files::Files;
use moslim_engine::keep::journal::{self, Journal};
use moslim_engine::run::devices;
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{About, Event, EventBody, Frame, Hello, Outcome, RunInfo, RunStatus};
use moslim_shared::inference::{GenerateEvent, GenerateRequest, ScoreRequest, problem_of};
use moslim_shared::listing::{Figures, RunsPage};
use moslim_shared::refusal::ApiError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{ErrorEvent, MessageEvent, Worker, WorkerOptions, WorkerType};

/// Events in one frame or answer.
const EVENTS: usize = 500;

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// Does something with the desk; nothing before it is open.
fn with(f: impl FnOnce(&mut Desk)) {
    DESK.with_borrow_mut(|desk| {
        if let Some(desk) = desk {
            f(desk);
        }
    });
}

fn tell(told: &Told) {
    // A page that is gone hears nothing.
    let _ = scope().post_message(&pack(told, &[]));
}

/// Opens the files, and listens.
pub async fn open() {
    let desk = match keep::open().await {
        Ok(Place::Private(log)) => Desk::new(log.paths(), Arc::new(log), String::new()),
        Ok(Place::Memory(log, note)) => Desk::new(log.paths(), Arc::new(log), note),
        Err(message) => return tell(&Told::Failed { message }),
    };
    let note = desk.note.clone();
    DESK.set(Some(desk));
    let heard = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| match unpack::<Asked>(&event) {
        Ok((asked, bytes)) => with(|desk| desk.hear(asked, &bytes.concat())),
        Err(message) => tell(&Told::Failed { message }),
    });
    scope().set_onmessage(Some(heard.as_ref().unchecked_ref()));
    heard.forget();
    tell(&Told::Ready { note });
}

/// Why a request came to nothing: its status, and what is said.
struct Refused(Box<ApiError>);

impl Refused {
    fn new(status: u16, error: impl Into<String>) -> Self {
        Self(Box::new(ApiError::new(status, error, Vec::new())))
    }

    fn invalid(problems: Vec<Problem>) -> Self {
        Self(Box::new(ApiError::new(422, "the configuration is not valid", problems)))
    }

    fn missing(run: &str) -> Self {
        Self::new(404, format!("there is no run {run}"))
    }

    fn kept(error: impl std::fmt::Display) -> Self {
        Self::new(507, format!("it cannot be kept: {error}"))
    }
}

type Answer = Result<(u16, String), Refused>;

fn said(value: &impl Serialize) -> Answer {
    Ok((200, serde_json::to_string(value).map_err(|e| Refused::new(500, e.to_string()))?))
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Refused> {
    serde_json::from_str(body).map_err(|e| Refused::new(400, format!("the request is not understood: {e}")))
}

/// A request that carries a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    config: RunConfig,
    /// Whether it may wait for its turn, which it cannot here: a tab has one trainer, and no one who watches when it is closed.
    #[serde(default, rename = "queue")]
    _queue: bool,
}

/// A trainer at work.
struct Trainer {
    run: String,
    worker: Worker,
    _heard: Closure<dyn FnMut(MessageEvent)>,
    _broken: Closure<dyn FnMut(ErrorEvent)>,
}

struct Desk {
    files: Arc<dyn Files>,
    runs: BTreeMap<String, RunInfo>,
    /// Runs that the page follows.
    followed: BTreeSet<String>,
    trainer: Option<Trainer>,
    asking: Asking,
    /// Runs that were deleted since the tab was opened, packed.
    trash: BTreeMap<String, Vec<u8>>,
    note: String,
}

impl Desk {
    fn new(paths: Vec<String>, files: Arc<dyn Files>, note: String) -> Self {
        let mut desk = Self {
            files,
            runs: BTreeMap::new(),
            followed: BTreeSet::new(),
            trainer: None,
            asking: Asking::new(answered),
            trash: BTreeMap::new(),
            note,
        };
        let ids = paths.iter().filter_map(|p| p.strip_prefix("runs/")?.split_once('/').map(|(id, _)| id.to_string()));
        for id in ids.collect::<BTreeSet<_>>() {
            desk.runs.extend(known(desk.files.as_ref(), &id).map(|info| (id, info)));
        }
        desk
    }

    fn hear(&mut self, asked: Asked, bytes: &[u8]) {
        match asked {
            Asked::Request { number, method, path, body } => {
                let mut packed = Vec::new();
                let asked = path.strip_prefix("/api/v1/runs/").and_then(|path| path.split_once('/'));
                if let ("POST", Some((run, what @ ("generate" | "score")))) = (method.as_str(), asked) {
                    if let Err(Refused(error)) = self.ask(number, run, what, &body) {
                        let text = serde_json::to_string(&error).unwrap_or_default();
                        tell(&Told::Answer { number, status: error.status, text });
                    }
                    return;
                }
                let answer = self.answer((&method, &path), &body, bytes, &mut packed);
                let (status, text) =
                    answer.unwrap_or_else(|Refused(error)| (error.status, serde_json::to_string(&error).unwrap_or_default()));
                let parts: &[&[u8]] = if packed.is_empty() { &[] } else { &[&packed] };
                let _ = scope().post_message(&pack(&Told::Answer { number, status, text }, parts));
            }
            Asked::Follow { hello } => self.follow(hello),
            Asked::Leave { run } => {
                self.followed.remove(&run);
            }
            Asked::Drop { number } => {
                let went_on = self.asking.leave(number, self.files.as_ref());
                self.broken(went_on);
            }
        }
    }

    /// What a server would answer to a request whose body is text or `bytes`; an answer of bytes is put into `packed`.
    fn answer(&mut self, (method, path): (&str, &str), body: &str, bytes: &[u8], packed: &mut Vec<u8>) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let steps: Vec<&str> = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').collect();
        match (method, steps.as_slice()) {
            ("GET", ["health"]) => said(&json!({ "name": "moslim-tab", "version": env!("CARGO_PKG_VERSION") })),
            ("GET", ["presets"]) => said(&moslim_shared::presets::all()),
            ("GET", ["devices"]) => said(&devices()),
            ("POST", ["task"]) => {
                let Proposal { config, .. } = read(body)?;
                self.objectives(&config)?;
                let info = Task::info(&config.task, &|path| self.files.read(path));
                said(&info.map_err(|e| Refused::new(500, format!("{e:#}")))?)
            }
            ("POST", ["validate"]) => said(&json!({ "problems": self.problems(&read::<Proposal>(body)?.config) })),
            ("GET", ["runs"]) => {
                let runs = self.runs.values().map(|run| (run, run.summary.as_deref().map(Figures::of)));
                said(&RunsPage::of(runs, &runs::list_query(query)).map_err(|message| Refused::new(400, message))?)
            }
            ("POST", ["runs"]) => self.start(read::<Proposal>(body)?.config),
            ("GET", ["runs", id]) => said(self.find(id)?),
            ("GET", ["runs", id, "events"]) => {
                self.find(id)?;
                let number = |name| query.split('&').find_map(|pair| pair.strip_prefix(name)?.parse::<u64>().ok());
                let (after, limit) = (number("after=").unwrap_or(0), number("limit=").unwrap_or(1000));
                said(&self.events(id).into_iter().filter(|e| e.seq > after).take(limit as usize).collect::<Vec<_>>())
            }
            ("GET", ["runs", id, "file"]) => {
                if self.find(id)?.status == RunStatus::Running {
                    return Err(Refused::new(409, format!("run {id} is training; wait for it or cancel it")));
                }
                *packed = carried::pack_run(self.files.as_ref(), id).map_err(|e| Refused::new(500, format!("{e:#}")))?;
                Ok((200, String::new()))
            }
            ("POST", ["run-files"]) => {
                let id = carried::unpack_run(self.files.as_ref(), bytes).map_err(|e| Refused::new(400, format!("{e:#}")))?;
                self.runs.extend(known(self.files.as_ref(), &id).map(|info| (id.clone(), info)));
                Ok((201, said(self.find(&id)?)?.1))
            }
            ("DELETE", ["runs", id]) => self.delete(id),
            ("POST", ["runs", id, "restore"]) => self.restore(id),
            ("POST", ["runs", id, "cancel"]) => self.cancel(id),
            ("POST", ["runs", id, "resume"]) => self.resume(id),
            ("PUT", ["runs", id, "about"]) => {
                let about: About = read(body)?;
                let problems = about.problems();
                if !problems.is_empty() {
                    return Err(Refused::invalid(problems));
                }
                self.find(id)?;
                let text = serde_json::to_vec_pretty(&about).map_err(Refused::kept)?;
                self.files.write(&format!("runs/{id}/about.json"), &text).map_err(Refused::kept)?;
                self.runs.entry(id.to_string()).and_modify(|run| run.about = about);
                said(self.find(id)?)
            }
            _ => Err(Refused::new(501, "A tab cannot do this; the lab with a server can (cargo lab).")),
        }
    }

    /// Asks a finished run; the answer comes later.
    fn ask(&mut self, number: u64, run: &str, what: &str, body: &str) -> Result<(), Refused> {
        self.find(run)?;
        let (what, problems) = if what == "generate" {
            let request: GenerateRequest = read(body)?;
            let problems = request.problems_for_one();
            (What::Generate(request), problems)
        } else {
            let request: ScoreRequest = read(body)?;
            let problems = request.problems();
            (What::Score(request), problems)
        };
        if !problems.is_empty() {
            return Err(Refused(Box::new(ApiError::new(422, "the request is not valid", problems))));
        }
        let request = Request { number, run: run.into(), what };
        self.asking.add(request).map_err(|message| Refused::new(429, message))?;
        let went_on = self.asking.go_on(self.files.as_ref());
        self.broken(went_on);
        Ok(())
    }

    /// What the assistant says, or why it has ended.
    fn answered(&mut self, said: Result<Said, String>) {
        let files = self.files.clone();
        let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let refuse = |number: u64, message: String| {
            let problems: Vec<Problem> = problem_of(&message).into_iter().collect();
            let status = if problems.is_empty() { 409 } else { 422 };
            tell(&Told::Answer { number, status, text: text(serde_json::to_string(&ApiError::new(status, message, problems))) });
        };
        let went_on = match said {
            Ok(Said::Ready) => self.asking.ready(files.as_ref()),
            Ok(Said::Failed { message }) => Err(message),
            Ok(Said::Event { number, event }) => {
                let (first, last) = (self.asking.said(number), event.is_last());
                match event {
                    GenerateEvent::Failed { message } if first => refuse(number, message),
                    event => {
                        tell(&Told::Line { number, text: text(serde_json::to_string(&event)) });
                        if last {
                            tell(&Told::Answer { number, status: 200, text: String::new() });
                        }
                    }
                }
                if last { self.asking.done(files.as_ref()) } else { Ok(()) }
            }
            Ok(Said::Scores { number, scores }) => {
                tell(&Told::Answer { number, status: 200, text: text(serde_json::to_string(&scores)) });
                self.asking.done(files.as_ref())
            }
            Ok(Said::Refused { number, message }) => {
                refuse(number, message);
                self.asking.done(files.as_ref())
            }
            Err(message) => Err(message),
        };
        self.broken(went_on);
    }

    /// Where the assistant cannot go on, who waits for it is told, and what waits behind is asked of another.
    fn broken(&mut self, went_on: Result<(), String>) {
        let Err(message) = went_on else { return };
        for number in self.asking.broken() {
            let error = ApiError::new(409, format!("the worker that answers has ended ({message}); ask again"), Vec::new());
            tell(&Told::Answer { number, status: 409, text: serde_json::to_string(&error).unwrap_or_default() });
        }
        let went_on = self.asking.go_on(self.files.as_ref());
        self.broken(went_on);
    }

    fn find(&self, run: &str) -> Result<&RunInfo, Refused> {
        self.runs.get(run).ok_or_else(|| Refused::missing(run))
    }

    fn events(&self, run: &str) -> Vec<Event> {
        let bytes = self.files.read(&format!("runs/{run}/{}", journal::FILE));
        journal::events(&bytes.ok().flatten().unwrap_or_default())
    }

    fn objectives(&self, config: &RunConfig) -> Result<Vec<moslim_shared::objective::Objective>, Refused> {
        Task::objectives_of(&config.task, &|path| self.files.read(path))
            .map_err(|e| Refused::invalid(vec![Problem { field: "task.name".into(), message: format!("{e:#}") }]))
    }

    fn problems(&self, config: &RunConfig) -> Vec<Problem> {
        let objectives = match self.objectives(config) {
            Ok(objectives) => objectives,
            Err(Refused(error)) => return error.problems,
        };
        let mut problems = config.problems(&objectives);
        if !config.base.model.is_empty() {
            let message = "an off-the-shelf model needs the lab with a server; a tab trains the lab's own models";
            problems.push(Problem { field: "base.model".into(), message: message.into() });
        }
        problems
    }

    /// Starts the trainer of a run.
    fn launch(&mut self, run: &str) -> Result<(), Refused> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        options.set_name(TRAINER);
        let failed = |e| Refused::new(500, format!("the worker that trains cannot be started: {}", keep::text(&e)));
        let worker = Worker::new_with_options(&scope().location().href(), &options).map_err(failed)?;
        let heard = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| {
            if let Ok((kept, bytes)) = unpack::<Kept>(&event) {
                with(|desk| desk.keep(kept, &bytes));
            }
        });
        let broken = Closure::<dyn FnMut(ErrorEvent)>::new(|event: ErrorEvent| {
            let message = format!("{}; its last checkpoint is kept, resume the run to go on", why_broken(&event.message()));
            with(|desk| desk.end(Some((Outcome::Failed, message))));
        });
        worker.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        worker.set_onerror(Some(broken.as_ref().unchecked_ref()));
        self.trainer = Some(Trainer { run: run.into(), worker, _heard: heard, _broken: broken });
        self.asking.forget(run);
        self.runs.entry(run.into()).and_modify(|info| (info.status, info.message) = (RunStatus::Running, String::new()));
        self.show(run);
        Ok(())
    }

    /// What the trainer says.
    fn keep(&mut self, kept: Kept, bytes: &[Vec<u8>]) {
        let Some(trainer) = &self.trainer else { return };
        let run = trainer.run.clone();
        let own = bytes.first().map(Vec::as_slice).unwrap_or_default();
        let done = match kept {
            Kept::Ready => self.hand_over(&run),
            Kept::Write { path } => {
                // Who asks the run while it trains is to find it.
                if path.contains("/milestone-") {
                    self.asking.forget(&run);
                }
                self.files.write(&path, own)
            }
            Kept::Remove { path } => self.files.remove(&path),
            Kept::Append { path } => {
                let added = self.files.append(&path).and_then(|mut file| file.add(own));
                if added.is_ok() && path == format!("runs/{run}/{}", journal::FILE) {
                    self.say(&run, own);
                }
                added
            }
            Kept::Failed { message } => return self.end(Some((Outcome::Failed, message))),
            Kept::Ended => return self.end(None),
        };
        if let Err(error) = done {
            let message = format!("what it learns cannot be kept ({error}); make room in this browser's storage, then resume it");
            self.end(Some((Outcome::Interrupted, message)));
        }
    }

    /// Gives the trainer its run, with the files that it may need.
    fn hand_over(&self, run: &str) -> std::io::Result<()> {
        let Some(info) = self.runs.get(run) else { return Ok(()) };
        let (mut paths, mut bytes) = (Vec::new(), Vec::new());
        for folder in [format!("runs/{run}"), "cache".into()] {
            for name in self.files.list(&folder)? {
                let path = format!("{folder}/{name}");
                bytes.extend(self.files.read(&path)?);
                paths.push(path);
            }
        }
        let training = Training { run: run.into(), config: info.config.clone(), files: paths };
        let parts: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        if let Some(trainer) = &self.trainer {
            trainer.worker.post_message(&pack(&training, &parts)).map_err(|e| std::io::Error::other(keep::text(&e)))?;
        }
        Ok(())
    }

    /// Takes in lines of a run's journal, and passes them on.
    fn say(&mut self, run: &str, lines: &[u8]) {
        let Some(info) = self.runs.get_mut(run) else { return };
        let mut events = Vec::new();
        for line in lines.split_inclusive(|&b| b == b'\n') {
            let event = journal::read_line(info.last_seq + 1, line);
            take(info, &event);
            events.push(event);
        }
        if self.followed.contains(run) {
            tell(&Told::Frame { run: run.into(), frame: Frame::Events { events } });
        }
    }

    /// The trainer is done or is ended. `how`: what its journal does not say yet.
    fn end(&mut self, how: Option<(Outcome, String)>) {
        let Some(trainer) = self.trainer.take() else { return };
        // What is on its way from it is not heard any more.
        trainer.worker.set_onmessage(None);
        trainer.worker.set_onerror(None);
        trainer.worker.terminate();
        let run = trainer.run;
        self.asking.forget(&run);
        if let Some((outcome, message)) = how {
            let ended = EventBody::Ended { outcome, message };
            let path = format!("runs/{run}/{}", journal::FILE);
            let before = self.events(&run).len();
            let kept = Journal::open(self.files.as_ref(), &path).and_then(|mut journal| journal.add(&ended));
            match (kept, self.files.read(&path)) {
                (Ok(()), Ok(Some(bytes))) => {
                    let last = bytes.split_inclusive(|&b| b == b'\n').skip(before).collect::<Vec<_>>().concat();
                    self.say(&run, &last);
                }
                // There is no room even for that: it is known as long as the tab is open.
                _ => {
                    if let (Some(info), EventBody::Ended { outcome, message }) = (self.runs.get_mut(&run), ended) {
                        (info.status, info.message) = (outcome.into(), message);
                    }
                }
            }
        }
        self.show(&run);
    }

    /// Tells the page how a run stands.
    fn show(&self, run: &str) {
        if let (true, Some(info)) = (self.followed.contains(run), self.runs.get(run)) {
            tell(&Told::Frame { run: run.into(), frame: Frame::Info { info: info.clone() } });
        }
    }

    fn follow(&mut self, hello: Hello) {
        let Some(info) = self.runs.get(&hello.run) else {
            let message = format!("there is no run {}", hello.run);
            return tell(&Told::Frame { run: hello.run, frame: Frame::Error { message } });
        };
        tell(&Told::Frame { run: hello.run.clone(), frame: Frame::Snapshot { info: info.clone() } });
        let events: Vec<Event> = self.events(&hello.run).into_iter().filter(|e| e.seq > hello.after).collect();
        for events in events.chunks(EVENTS) {
            tell(&Told::Frame { run: hello.run.clone(), frame: Frame::Events { events: events.to_vec() } });
        }
        // Where nothing more will come, that is said last.
        let over = info.status != RunStatus::Running;
        self.followed.insert(hello.run.clone());
        if over {
            self.show(&hello.run);
        }
    }
}

/// Takes in what the assistant says.
fn answered(said: Result<Said, String>) {
    with(|desk| desk.answered(said));
}
