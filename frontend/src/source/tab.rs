//! The engine in a worker of this tab. The worker takes a moment to open its files; what is asked before waits.

use super::{Answered, Carried, Ears, Failure, Link, Pouring, Source, at, notice};
use crate::json::read;
use crate::words::{said, t};
use js_sys::{Array, Function, Promise, Uint8Array};
use leptos::prelude::Set;
use moslim_shared::event::{Frame, RunStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Event, MessageEvent, Worker, WorkerOptions, WorkerType};

/// What the worker tells the page.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
// It is read and used up at once.
#[allow(clippy::large_enum_variant)]
enum Told {
    Ready { note: String },
    Failed { message: String },
    Answer { number: u64, status: u16, text: String },
    Line { number: u64, text: String },
    Frame { run: String, frame: Frame },
}

#[derive(Default)]
enum Standing {
    /// What was asked meanwhile.
    #[default]
    Opening,
    Open,
    Broken(String),
}

#[derive(Default)]
struct Inner {
    worker: RefCell<Option<Worker>>,
    standing: RefCell<Standing>,
    waiting: RefCell<Vec<JsValue>>,
    /// What answers are for, by their numbers.
    asked: RefCell<HashMap<u64, Function>>,
    poured: RefCell<HashMap<u64, Rc<Pouring>>>,
    number: Cell<u64>,
    links: RefCell<HashMap<String, Rc<Ears>>>,
}

/// The worker of this tab.
pub struct Tab(Rc<Inner>);

impl Tab {
    /// Starts the worker.
    pub fn open() -> Self {
        let inner = Rc::new(Inner::default());
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        options.set_name("desk");
        match Worker::new_with_options(&at("/tab/worker.js"), &options) {
            Err(_) => inner.fail(t("This browser cannot start a Web Worker, which the engine needs.")),
            Ok(worker) => {
                let hearing = inner.clone();
                let heard = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
                    // A text, or a list of it and bytes.
                    let data = event.data();
                    let bytes = data.dyn_ref::<Array>().map(|all| all.get(1));
                    let text = data.dyn_ref::<Array>().map_or(data.clone(), |all| all.get(0)).as_string().unwrap_or_default();
                    match read(&text) {
                        Ok(told) => hearing.hear(told, bytes),
                        Err(error) => {
                            let error = error.to_string();
                            hearing.fail(&said("The engine's message was not understood (\"{0}\"). Reload the page.", &[&error]))
                        }
                    }
                });
                let breaking = inner.clone();
                let broken = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
                    let why = js_sys::Reflect::get(&event, &"message".into()).ok().and_then(|m| m.as_string());
                    let why = why.unwrap_or_else(|| t("it could not be loaded").into());
                    breaking
                        .fail(&said("The engine of this tab has ended ({0}). Reload the page; what was kept is kept.", &[&why]));
                });
                worker.set_onmessage(Some(heard.as_ref().unchecked_ref()));
                worker.set_onerror(Some(broken.as_ref().unchecked_ref()));
                // As long as the page.
                heard.forget();
                broken.forget();
                *inner.worker.borrow_mut() = Some(worker);
            }
        }
        Self(inner)
    }
}

impl Inner {
    fn send(&self, message: &Value, bytes: Option<Uint8Array>) {
        let text = JsValue::from(message.to_string());
        let whole = bytes.map_or(text.clone(), |bytes| Array::of2(&text, &bytes).into());
        match &*self.standing.borrow() {
            Standing::Opening => self.waiting.borrow_mut().push(whole),
            Standing::Open => self.post(&whole),
            Standing::Broken(_) => {}
        }
    }

    fn post(&self, message: &JsValue) {
        if let Some(worker) = &*self.worker.borrow() {
            let _ = worker.post_message(message);
        }
    }

    /// A number that no request has had.
    fn fresh(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    fn send_request(&self, number: u64, (method, path): (&str, &str), body: &str, bytes: Option<Uint8Array>) {
        self.send(&json!({ "request": { "number": number, "method": method, "path": path, "body": body } }), bytes);
    }

    /// Asks; the answer is a status and a value.
    fn request(&self, method: &str, path: &str, body: &str, bytes: Option<Uint8Array>) -> Carried {
        if let Standing::Broken(message) = &*self.standing.borrow() {
            let failure = Failure::new(message.clone());
            return Box::pin(async move { Err(failure) });
        }
        let number = self.fresh();
        let promise = Promise::new(&mut |resolve, _| {
            self.asked.borrow_mut().insert(number, resolve);
        });
        self.send_request(number, (method, path), body, bytes);
        Box::pin(async move {
            let answer = JsFuture::from(promise).await.map_err(|e| Failure::new(format!("{e:?}")))?;
            let answer: Array = answer.unchecked_into();
            match answer.get(0).as_f64() {
                Some(status) if status > 0.0 => Ok((status as u16, answer.get(1))),
                _ => Err(Failure::new(answer.get(1).as_string().unwrap_or_default())),
            }
        })
    }

    /// Nothing will be answered any more.
    fn fail(&self, message: &str) {
        *self.standing.borrow_mut() = Standing::Broken(message.into());
        notice().set(message.into());
        for (_, resolve) in self.asked.borrow_mut().drain() {
            let _ = resolve.call1(&JsValue::NULL, &Array::of2(&0.into(), &message.into()));
        }
        let poured: Vec<Rc<Pouring>> = self.poured.borrow_mut().drain().map(|(_, pouring)| pouring).collect();
        for pouring in poured {
            (pouring.ended)(Err(Failure::new(message)));
        }
        let ears: Vec<Rc<Ears>> = self.links.borrow().values().cloned().collect();
        for ears in ears {
            (ears.frame)(Frame::Error { message: message.into() });
        }
    }

    fn hear(&self, told: Told, bytes: Option<JsValue>) {
        match told {
            Told::Ready { note } => {
                notice().set(note);
                *self.standing.borrow_mut() = Standing::Open;
                for message in self.waiting.take() {
                    self.post(&message);
                }
            }
            Told::Failed { message } => self.fail(&message),
            Told::Line { number, text } => {
                let pouring = self.poured.borrow().get(&number).cloned();
                if let Some(pouring) = pouring {
                    (pouring.line)(text);
                }
            }
            Told::Answer { number, status, text } => {
                let pouring = self.poured.borrow_mut().remove(&number);
                if let Some(pouring) = pouring {
                    return (pouring.ended)(Ok((status, text)));
                }
                if let Some(resolve) = self.asked.borrow_mut().remove(&number) {
                    let _ = resolve.call1(&JsValue::NULL, &Array::of2(&status.into(), &bytes.unwrap_or_else(|| text.into())));
                }
            }
            Told::Frame { run, frame } => {
                let ears = self.links.borrow().get(&run).cloned();
                let Some(ears) = ears else { return };
                let over = matches!(&frame, Frame::Info { info } if info.status != RunStatus::Running);
                (ears.frame)(frame);
                if over {
                    self.links.borrow_mut().remove(&run);
                    (ears.closed)();
                }
            }
        }
    }
}

impl Source for Tab {
    fn ask(&self, method: &'static str, path: String, body: Option<String>) -> Answered {
        let answer = self.0.request(method, &path, &body.unwrap_or_default(), None);
        Box::pin(async move { answer.await.map(|(status, text)| (status, text.as_string().unwrap_or_default())) })
    }

    fn carry(&self, path: String, bytes: Option<Uint8Array>) -> Carried {
        self.0.request(if bytes.is_some() { "POST" } else { "GET" }, &path, "", bytes)
    }

    fn pour(&self, path: String, body: String, pouring: Rc<Pouring>) -> Box<dyn Link> {
        let number = self.0.fresh();
        self.0.poured.borrow_mut().insert(number, pouring.clone());
        if let Standing::Broken(message) = &*self.0.standing.borrow() {
            let failure = Failure::new(message.clone());
            // As everywhere, not before who asks has what it asked for.
            leptos::task::spawn_local(async move { (pouring.ended)(Err(failure)) });
        }
        self.0.send_request(number, ("POST", &path), &body, None);
        Box::new(Poured { inner: self.0.clone(), number })
    }

    fn follow(&self, ears: Rc<Ears>) -> Option<Box<dyn Link>> {
        let hello = (ears.hello)();
        let run = hello.run.clone();
        if let Standing::Broken(message) = &*self.0.standing.borrow() {
            (ears.frame)(Frame::Error { message: message.clone() });
        }
        self.0.links.borrow_mut().insert(run.clone(), ears.clone());
        self.0.send(&json!({ "follow": { "hello": hello } }), None);
        Some(Box::new(Following { inner: self.0.clone(), run, ears }))
    }
}

struct Following {
    inner: Rc<Inner>,
    run: String,
    ears: Rc<Ears>,
}

impl Link for Following {}

impl Drop for Following {
    fn drop(&mut self) {
        let mut links = self.inner.links.borrow_mut();
        // Another one may follow the run by now.
        if links.get(&self.run).is_some_and(|ears| Rc::ptr_eq(ears, &self.ears)) {
            links.remove(&self.run);
            drop(links);
            self.inner.send(&json!({ "leave": { "run": self.run } }), None);
        }
    }
}

/// An answer that comes line by line.
struct Poured {
    inner: Rc<Inner>,
    number: u64,
}

impl Link for Poured {}

impl Drop for Poured {
    fn drop(&mut self) {
        if self.inner.poured.borrow_mut().remove(&self.number).is_some() {
            self.inner.send(&json!({ "drop": { "number": self.number } }), None);
        }
    }
}
