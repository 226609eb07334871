//! The desk's hold on the assistant: requests wait for it in a row, and an answer that nobody wants any more ends with it.

use super::messages::{Said, Task, pack, unpack};
use super::{ASSISTANT, keep, scope, why_broken};
use moslim_engine::keep::files::Files;
use moslim_shared::inference::{GenerateRequest, ScoreRequest};
use std::collections::VecDeque;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{Event, MessageEvent, Worker, WorkerOptions, WorkerType};

/// Requests that wait at most.
const MOST_WAITING: usize = 8;

/// What is asked of a run, and the number that its answer carries.
pub struct Request {
    pub number: u64,
    pub run: String,
    pub what: What,
}

pub enum What {
    Generate(GenerateRequest),
    Score(ScoreRequest),
}

/// Whom the assistant's words are told, or why it has ended.
pub type Hearing = fn(Result<Said, String>);

struct Assistant {
    worker: Worker,
    ready: bool,
    /// The run that it has.
    run: Option<String>,
    _heard: Closure<dyn FnMut(MessageEvent)>,
    _broken: Closure<dyn FnMut(Event)>,
}

pub struct Asking {
    hearing: Hearing,
    assistant: Option<Assistant>,
    waiting: VecDeque<Request>,
    /// The request that is being answered, and whether something was said to it.
    current: Option<(u64, bool)>,
}

impl Asking {
    pub fn new(hearing: Hearing) -> Self {
        Self { hearing, assistant: None, waiting: VecDeque::new(), current: None }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// When too many wait; for people.
    pub fn add(&mut self, request: Request) -> Result<(), String> {
        if self.waiting.len() >= MOST_WAITING {
            return Err(format!("{MOST_WAITING} requests wait already; try again in a moment"));
        }
        self.waiting.push_back(request);
        Ok(())
    }

    /// It can hear now.
    pub fn ready(&mut self, files: &dyn Files) -> Result<(), String> {
        if let Some(assistant) = &mut self.assistant {
            assistant.ready = true;
        }
        self.go_on(files)
    }

    /// Something was said to a request. Returns whether it was the first.
    pub fn said(&mut self, number: u64) -> bool {
        match &mut self.current {
            Some((current, said)) if *current == number => !std::mem::replace(said, true),
            _ => false,
        }
    }

    /// A request was answered.
    pub fn done(&mut self, files: &dyn Files) -> Result<(), String> {
        self.current = None;
        self.go_on(files)
    }

    /// The answer to a request is not wanted any more.
    pub fn leave(&mut self, number: u64, files: &dyn Files) -> Result<(), String> {
        self.waiting.retain(|request| request.number != number);
        if self.current.is_some_and(|(current, _)| current == number) {
            self.end();
        }
        // One that never came to hear anything is not waited for by who comes next.
        if self.waiting.is_empty() && self.assistant.as_ref().is_some_and(|a| !a.ready) {
            self.end();
        }
        self.go_on(files)
    }

    /// Ends the assistant, which cannot go on. Returns whom that has to be told: the request that it was at, or, where it was at none, all
    /// that wait for it; what waits behind the one is asked of another assistant.
    pub fn broken(&mut self) -> Vec<u64> {
        match self.end() {
            Some(number) => vec![number],
            None => self.waiting.drain(..).map(|request| request.number).collect(),
        }
    }

    /// Ends the assistant; a later request starts another. Returns the request that it was at.
    fn end(&mut self) -> Option<u64> {
        if let Some(assistant) = self.assistant.take() {
            assistant.worker.set_onmessage(None);
            assistant.worker.set_onerror(None);
            assistant.worker.terminate();
        }
        self.current.take().map(|(number, _)| number)
    }

    /// Forgets what it has of a run, which has changed.
    pub fn forget(&mut self, run: &str) {
        if let Some(assistant) = self.assistant.as_mut().filter(|a| a.run.as_deref() == Some(run)) {
            assistant.run = None;
        }
    }

    /// Asks what waits, if it can be asked now.
    ///
    /// # Errors
    /// When the worker cannot be started, or does not take what it is told; for people.
    pub fn go_on(&mut self, files: &dyn Files) -> Result<(), String> {
        if self.current.is_some() || self.waiting.is_empty() {
            return Ok(());
        }
        if self.assistant.is_none() {
            self.assistant = Some(self.start()?);
        }
        let Some(assistant) = self.assistant.as_mut().filter(|a| a.ready) else { return Ok(()) };
        let Some(Request { number, run, what }) = self.waiting.pop_front() else { return Ok(()) };
        self.current = Some((number, false));
        if assistant.run.as_ref() != Some(&run) {
            let (mut paths, mut bytes) = (Vec::new(), Vec::new());
            let folder = format!("runs/{run}");
            let failed = |e: std::io::Error| format!("run {run} cannot be read: {e}");
            for name in files.list(&folder).map_err(failed)? {
                // Checkpoints are large, and nothing is asked of them.
                if name.starts_with("checkpoint-") {
                    continue;
                }
                let path = format!("{folder}/{name}");
                bytes.extend(files.read(&path).map_err(failed)?);
                paths.push(path);
            }
            let parts: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
            assistant.post(&Task::Load { run: run.clone(), files: paths }, &parts)?;
            assistant.run = Some(run);
        }
        assistant.post(
            &match what {
                What::Generate(request) => Task::Generate { number, request },
                What::Score(request) => Task::Score { number, request },
            },
            &[],
        )
    }

    fn start(&self) -> Result<Assistant, String> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        options.set_name(ASSISTANT);
        let failed = |e| format!("the worker that answers cannot be started: {}", keep::text(&e));
        let worker = Worker::new_with_options(&scope().location().href(), &options).map_err(failed)?;
        let hearing = self.hearing;
        let heard = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            hearing(unpack::<Said>(&event).map(|(said, _)| said));
        });
        let broken = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            // A script that cannot be loaded says nothing.
            let why = js_sys::Reflect::get(&event, &"message".into()).ok().and_then(|m| m.as_string());
            hearing(Err(why.map_or_else(|| "it could not be loaded".into(), |why| why_broken(&why))));
        });
        worker.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        worker.set_onerror(Some(broken.as_ref().unchecked_ref()));
        Ok(Assistant { worker, ready: false, run: None, _heard: heard, _broken: broken })
    }
}

impl Assistant {
    fn post(&self, task: &Task, parts: &[&[u8]]) -> Result<(), String> {
        self.worker.post_message(&pack(task, parts)).map_err(|e| keep::text(&e))
    }
}
