//! The server: requests over HTTP, events over a websocket.

use super::{Answered, Carried, Ears, Failure, Link, Source, at};
use gloo_net::http::{Method, RequestBuilder};
use js_sys::Uint8Array;
use leptos::prelude::window;
use moslim_shared::event::Frame;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{MessageEvent, WebSocket};

/// The server that this page came from.
pub struct Server;

impl Source for Server {
    fn ask(&self, method: &'static str, path: String, body: Option<String>) -> Answered {
        Box::pin(async move {
            let silent = |_| Failure::new("The server did not answer. Is moslim-lab still running?");
            let method = match method {
                "PUT" => Method::PUT,
                "POST" => Method::POST,
                _ => Method::GET,
            };
            let request = RequestBuilder::new(&at(&path)).method(method);
            let request = match body {
                Some(body) => request.header("Content-Type", "application/json").body(body),
                None => request.build(),
            };
            let response = request.map_err(|e| Failure::new(format!("The request cannot be made ({e}).")))?.send().await;
            let response = response.map_err(silent)?;
            let text = response.text().await.map_err(silent)?;
            Ok((response.status(), text))
        })
    }

    fn carry(&self, path: String, bytes: Option<Uint8Array>) -> Carried {
        Box::pin(async move {
            let silent = |_| Failure::new("The server did not answer. Is moslim-lab still running?");
            let sends = bytes.is_some();
            let request = RequestBuilder::new(&at(&path)).method(if sends { Method::POST } else { Method::GET });
            let request = match bytes {
                Some(bytes) => request.header("Content-Type", "application/octet-stream").body(bytes),
                None => request.build(),
            };
            let response = request.map_err(|e| Failure::new(format!("The request cannot be made ({e}).")))?.send().await;
            let response = response.map_err(silent)?;
            let answer = match response.ok() && !sends {
                true => Uint8Array::from(response.binary().await.map_err(silent)?.as_slice()).into(),
                false => response.text().await.map_err(silent)?.into(),
            };
            Ok((response.status(), answer))
        })
    }

    fn follow(&self, ears: Rc<Ears>) -> Option<Box<dyn Link>> {
        let socket = WebSocket::new(&address()).ok()?;
        let (opened, writer) = (ears.clone(), socket.clone());
        let open = Closure::<dyn FnMut()>::new(move || {
            let hello = serde_json::to_string(&(opened.hello)()).unwrap_or_default();
            let _ = writer.send_with_str(&hello);
        });
        let heard = ears.clone();
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let Some(text) = event.data().as_string() else { return };
            let frame = serde_json::from_str::<Frame>(&text).unwrap_or_else(|error| Frame::Error {
                message: format!("A message was not understood (\"{error}\"). Reload the page."),
            });
            (heard.frame)(frame);
        });
        let close = Closure::<dyn FnMut()>::new(move || (ears.closed)());
        socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        Some(Box::new(Socket { socket, _open: open, _message: message, _close: close }))
    }
}

fn address() -> String {
    let location = window().location();
    let secure = location.protocol().is_ok_and(|p| p == "https:");
    let host = location.host().unwrap_or_default();
    format!("{}://{host}{}", if secure { "wss" } else { "ws" }, at("/api/v1/ws"))
}

struct Socket {
    socket: WebSocket,
    _open: Closure<dyn FnMut()>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut()>,
}

impl Link for Socket {}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        let _ = self.socket.close();
    }
}
