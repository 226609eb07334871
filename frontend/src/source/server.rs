//! The server: requests over HTTP, events over a websocket.

use super::{Answered, Carried, Ears, Failure, Link, Pouring, Source, at};
use crate::json::{read, written};
use crate::words::{said, t};
use gloo_net::http::{Method, RequestBuilder, Response};
use js_sys::{Reflect, Uint8Array};
use leptos::prelude::window;
use leptos::task::spawn_local;
use moslim_shared::event::{Addressed, Frame, Subscription};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, MessageEvent, ReadableStreamDefaultReader, WebSocket};

/// The server that this page came from.
pub struct Server;

impl Source for Server {
    fn ask(&self, method: &'static str, path: String, body: Option<String>) -> Answered {
        Box::pin(async move {
            let method = match method {
                "PUT" => Method::PUT,
                "POST" => Method::POST,
                "DELETE" => Method::DELETE,
                _ => Method::GET,
            };
            let response = send(method, &path, body.map(|body| (JSON, body.into())), None).await?;
            let text = response.text().await.map_err(silent)?;
            Ok((response.status(), text))
        })
    }

    fn carry(&self, path: String, bytes: Option<Uint8Array>) -> Carried {
        Box::pin(async move {
            let sends = bytes.is_some();
            let method = if sends { Method::POST } else { Method::GET };
            let response = send(method, &path, bytes.map(|bytes| (BYTES, bytes.into())), None).await?;
            let answer = match response.ok() && !sends {
                true => Uint8Array::from(response.binary().await.map_err(silent)?.as_slice()).into(),
                false => response.text().await.map_err(silent)?.into(),
            };
            Ok((response.status(), answer))
        })
    }

    fn pour(&self, path: String, body: String, pouring: Rc<Pouring>) -> Box<dyn Link> {
        let controller = AbortController::new().ok();
        let signal = controller.as_ref().map(AbortController::signal);
        spawn_local(async move {
            // Who has dropped the link hears nothing more.
            let dropped = signal.clone();
            let ended = poured(path, body, signal, &pouring).await;
            if !dropped.is_some_and(|signal| signal.aborted()) {
                (pouring.ended)(ended);
            }
        });
        Box::new(Poured(controller))
    }

    fn follow(&self, ears: Rc<Ears>) -> Option<Box<dyn Link>> {
        let line = LINE.with_borrow(Clone::clone).or_else(Line::open)?;
        let channel = line.next.replace(line.next.get() + 1);
        line.ears.borrow_mut().push((channel, ears.clone()));
        if line.stands() {
            line.subscribe(channel, &ears);
        }
        Some(Box::new(Following { line, channel }))
    }
}

thread_local! {
    /// The one socket of the page, while anything is followed.
    static LINE: RefCell<Option<Rc<Line>>> = const { RefCell::new(None) };
}

/// What a socket calls: when it stands, with a message, and when it is closed.
type Called = (Closure<dyn FnMut()>, Closure<dyn FnMut(MessageEvent)>, Closure<dyn FnMut()>);

/// A socket over which everything that the page follows comes, each on a channel of its own.
struct Line {
    socket: WebSocket,
    /// Few, and by their numbers.
    ears: RefCell<Vec<(u32, Rc<Ears>)>>,
    next: Cell<u32>,
    /// Kept as long as the socket calls them.
    called: RefCell<Option<Called>>,
}

impl Line {
    /// Opens the page's socket; `None` where there cannot be one.
    fn open() -> Option<Rc<Self>> {
        let socket = WebSocket::new(&address()).ok()?;
        let line = Rc::new(Self { socket, ears: RefCell::default(), next: Cell::new(0), called: RefCell::default() });
        let (opened, heard, lost) = (Rc::downgrade(&line), Rc::downgrade(&line), Rc::downgrade(&line));
        let open = Closure::<dyn FnMut()>::new(move || {
            let Some(line) = opened.upgrade() else { return };
            let all = line.ears.borrow().clone();
            all.iter().for_each(|(channel, ears)| line.subscribe(*channel, ears));
        });
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if let (Some(line), Some(text)) = (heard.upgrade(), event.data().as_string()) {
                line.hear(&text);
            }
        });
        let close = Closure::<dyn FnMut()>::new(move || {
            let Some(line) = lost.upgrade() else { return };
            line.leave();
            let all = line.ears.take();
            all.iter().for_each(|(_, ears)| (ears.closed)());
        });
        line.socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        line.socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        line.socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        line.called.replace(Some((open, message, close)));
        LINE.set(Some(line.clone()));
        Some(line)
    }

    fn stands(&self) -> bool {
        self.socket.ready_state() == WebSocket::OPEN
    }

    fn say(&self, said: &Subscription) {
        let _ = self.socket.send_with_str(&written(said));
    }

    fn subscribe(&self, channel: u32, ears: &Ears) {
        self.say(&Subscription::Subscribe { channel, hello: (ears.hello)() });
    }

    /// Hands a message on. It may lead to channels that begin and end, so that nothing is borrowed meanwhile.
    fn hear(&self, text: &str) {
        let ears = |channel: u32| self.ears.borrow().iter().find(|(own, _)| *own == channel).map(|(_, ears)| ears.clone());
        match read::<Addressed>(text) {
            Ok(Addressed { channel, frame: Some(frame) }) => {
                if let Some(ears) = ears(channel) {
                    (ears.frame)(frame);
                }
            }
            Ok(Addressed { channel, frame: None }) => {
                let ended = self.end(channel);
                if let Some(ears) = ended {
                    (ears.closed)();
                }
            }
            // Without a channel it is for all: the server says why it hangs up.
            Err(error) => {
                let message = match read::<Frame>(text) {
                    Ok(Frame::Error { message }) => message,
                    _ => said("A message was not understood (\"{0}\"). Reload the page.", &[&error.to_string()]),
                };
                let all = self.ears.borrow().clone();
                all.iter().for_each(|(_, ears)| (ears.frame)(Frame::Error { message: message.clone() }));
            }
        }
    }

    /// Forgets a channel; whose it was.
    fn end(&self, channel: u32) -> Option<Rc<Ears>> {
        let mut all = self.ears.borrow_mut();
        let place = all.iter().position(|(own, _)| *own == channel)?;
        Some(all.remove(place).1)
    }

    /// Whatever is followed next opens another socket.
    fn leave(&self) {
        LINE.with_borrow_mut(|line| {
            if line.as_ref().is_some_and(|line| std::ptr::eq(Rc::as_ptr(line), self)) {
                *line = None;
            }
        });
    }
}

/// What is followed on a channel.
struct Following {
    line: Rc<Line>,
    channel: u32,
}

impl Link for Following {}

impl Drop for Following {
    fn drop(&mut self) {
        let line = &self.line;
        // The server may have ended the channel.
        let known = line.end(self.channel).is_some();
        if line.ears.borrow().is_empty() {
            line.leave();
            line.socket.set_onopen(None);
            line.socket.set_onmessage(None);
            line.socket.set_onclose(None);
            let _ = line.socket.close();
        } else if known && line.stands() {
            line.say(&Subscription::Unsubscribe { channel: self.channel });
        }
    }
}

/// What is sent.
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Nothing came back, whatever the browser says of it.
fn silent<E>(_: E) -> Failure {
    Failure::new(t("The server did not answer. Is moslim-lab still running?"))
}

/// Sends a request: with a body of a kind, where there is one, until the signal says that nobody wants it any more.
async fn send(
    method: Method,
    path: &str,
    body: Option<(&str, JsValue)>,
    signal: Option<&AbortSignal>,
) -> Result<Response, Failure> {
    let request = RequestBuilder::new(&at(path)).method(method).abort_signal(signal);
    let request = match body {
        Some((kind, body)) => request.header("Content-Type", kind).body(body),
        None => request.build(),
    };
    request.map_err(|e| Failure::new(said("The request cannot be made ({0}).", &[&e.to_string()])))?.send().await.map_err(silent)
}

/// A file that lies beside the page.
pub async fn file(path: &str) -> Result<Uint8Array, Failure> {
    let response = send(Method::GET, path, None, None).await?;
    if !response.ok() {
        return Err(Failure::new(said("{0} cannot be had: status {1}.", &[path, &response.status().to_string()])));
    }
    Ok(Uint8Array::from(response.binary().await.map_err(silent)?.as_slice()))
}

/// Sends a request, and passes its lines on as they come.
async fn poured(path: String, body: String, signal: Option<AbortSignal>, pouring: &Pouring) -> Result<(u16, String), Failure> {
    let response = send(Method::POST, &path, Some((JSON, body.into())), signal.as_ref()).await?;
    let status = response.status();
    if status != 200 {
        return Ok((status, response.text().await.map_err(silent)?));
    }
    let stream = response.body().ok_or_else(|| silent(()))?;
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut bytes = Vec::new();
    loop {
        let read = JsFuture::from(reader.read()).await.map_err(silent)?;
        let part = |name: &str| Reflect::get(&read, &name.into()).unwrap_or_default();
        if part("done").is_truthy() {
            return Ok((status, String::new()));
        }
        bytes.extend(part("value").unchecked_into::<Uint8Array>().to_vec());
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = bytes.drain(..=end).collect();
            (pouring.line)(String::from_utf8_lossy(&line).trim_end().to_string());
        }
    }
}

struct Poured(Option<AbortController>);

impl Link for Poured {}

impl Drop for Poured {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

fn address() -> String {
    let location = window().location();
    let secure = location.protocol().is_ok_and(|p| p == "https:");
    let host = location.host().unwrap_or_default();
    format!("{}://{host}{}", if secure { "wss" } else { "ws" }, at("/api/v1/ws"))
}
