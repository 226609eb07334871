//! The worker that asks finished runs: it generates and scores with the files of one run at a time, which the desk hands over.

use super::messages::{Said, Task, pack, unpack};
use super::scope;
use moslim_engine::keep::files::{Files, Memory};
use moslim_engine::progress::Stop;
use moslim_engine::run::Generator;
use moslim_shared::config::DeviceChoice;
use moslim_shared::inference::{GenerateEvent, ScoreRequest, Scored};
use moslim_shared::preference::Preference;
use std::cell::RefCell;
use std::sync::Arc;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::MessageEvent;

thread_local! {
    /// The run that is asked, or why it cannot be.
    static LOADED: RefCell<Result<Generator, String>> = const { RefCell::new(Err(String::new())) };
}

fn tell(said: &Said) {
    let _ = scope().post_message(&pack(said, &[]));
}

/// Waits for runs and requests, and answers them in order.
pub fn listen() {
    let heard = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| {
        if let Ok((task, bytes)) = unpack::<Task>(&event) {
            LOADED.with_borrow_mut(|loaded| hear(loaded, task, bytes));
        }
    });
    scope().set_onmessage(Some(heard.as_ref().unchecked_ref()));
    heard.forget();
    tell(&Said::Ready);
}

fn hear(loaded: &mut Result<Generator, String>, task: Task, bytes: Vec<Vec<u8>>) {
    match task {
        Task::Load { run, files } => {
            let memory = Memory::default();
            for (path, bytes) in files.iter().zip(bytes) {
                let _ = memory.write(path, &bytes);
            }
            let generator = Generator::load_in(Arc::new(memory), format!("runs/{run}"), DeviceChoice::Cpu);
            *loaded = generator.map_err(|e| format!("run {run} cannot answer: {e:#}"));
        }
        Task::Generate { number, request } => match loaded {
            Ok(generator) => {
                generator.answer(&request, &Stop::default(), &mut |event| tell(&Said::Event { number, event }));
            }
            Err(message) => {
                tell(&Said::Event { number, event: GenerateEvent::Failed { message: message.clone() } });
            }
        },
        Task::Score { number, request } => tell(&match loaded.as_ref().map_err(Clone::clone).and_then(|g| score(g, &request)) {
            Ok(scores) => Said::Scores { number, scores },
            Err(message) => Said::Refused { number, message },
        }),
    }
}

fn score(generator: &Generator, request: &ScoreRequest) -> Result<Vec<Scored>, String> {
    let asked = Preference::parse(&request.target, generator.objectives()).map_err(|e| format!("target: {e}"))?;
    let asked = (asked.active() > 0).then_some(&asked);
    generator.score(&request.pairs, asked).map_err(|e| format!("{e:#}"))
}
