//! Whom the page asks: the server that it came from, or the engine in a worker of this tab. Both answer the same requests with the
//! same types; nothing outside this folder knows which one it is, but for a page that has to say so.

mod server;
mod tab;

use js_sys::Uint8Array;
use leptos::prelude::{ArcRwSignal, document};
use moslim_shared::config::Problem;
use moslim_shared::event::{Frame, Hello};
use std::cell::OnceCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// Problems of a configuration, with the path of each field.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// One without problems of fields.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), problems: Vec::new() }
    }
}

/// An answer to a request: its status and its text.
pub type Answered = Pin<Box<dyn Future<Output = Result<(u16, String), Failure>>>>;

/// An answer of bytes, or, to bytes, of text.
pub type Carried = Pin<Box<dyn Future<Output = Result<(u16, JsValue), Failure>>>>;

/// What a live connection to a run, or to the list of them, does.
pub struct Ears {
    /// What the page has already; asked when the connection stands.
    pub hello: Box<dyn Fn() -> Hello>,
    pub frame: Box<dyn Fn(Frame)>,
    /// Nothing more will come over this connection.
    pub closed: Box<dyn Fn()>,
}

/// How such an answer ended: its status, and what is said of one that is not 200.
pub type Ended = Result<(u16, String), Failure>;

/// How an answer that comes line by line is heard.
pub struct Pouring {
    pub line: Box<dyn Fn(String)>,
    /// Nothing more will come.
    pub ended: Box<dyn Fn(Ended)>,
}

/// A live connection; it is closed when this is dropped.
pub trait Link {}

/// Whoever answers.
pub trait Source {
    /// Sends a request: `GET` or `DELETE` without a body, or `POST` or `PUT` with one, JSON.
    fn ask(&self, method: &'static str, path: String, body: Option<String>) -> Answered;

    /// Fetches bytes, or sends some; the answer is a `Uint8Array` where all went well and bytes were asked for, else a text.
    fn carry(&self, path: String, bytes: Option<Uint8Array>) -> Carried;

    /// Sends a request, JSON, whose answer comes line by line; when what it returns is dropped, the rest is not wanted any more.
    fn pour(&self, path: String, body: String, pouring: Rc<Pouring>) -> Box<dyn Link>;

    /// Opens a live connection to a run, or, where it is a server, to the list of them; `None` where that is not possible just now.
    fn follow(&self, ears: Rc<Ears>) -> Option<Box<dyn Link>>;
}

thread_local! {
    static SOURCE: OnceCell<Rc<dyn Source>> = const { OnceCell::new() };
    static BASE: OnceCell<String> = const { OnceCell::new() };
    static NOTICE: OnceCell<ArcRwSignal<String>> = const { OnceCell::new() };
}

/// What people should know of whoever answers, on every page: that runs are lost with the tab, or that nothing can be computed here.
pub fn notice() -> ArcRwSignal<String> {
    NOTICE.with(|notice| notice.get_or_init(ArcRwSignal::default).clone())
}

/// Whether runs are trained in this tab.
pub fn is_tab() -> bool {
    document().document_element().is_some_and(|root| root.get_attribute("data-source").as_deref() == Some("tab"))
}

/// The file of a trained run that lies beside the page, where one does.
const EXAMPLE: &str = "/example.moslim-run";

/// Whether a trained run lies beside the page.
pub fn has_example() -> bool {
    is_tab() && document().document_element().is_some_and(|root| root.has_attribute("data-example"))
}

/// The trained run that lies beside the page, as a file.
pub async fn example() -> Result<Uint8Array, Failure> {
    server::file(EXAMPLE).await
}

/// Whoever answers here.
pub fn source() -> Rc<dyn Source> {
    SOURCE
        .with(|source| source.get_or_init(|| if is_tab() { Rc::new(tab::Tab::open()) } else { Rc::new(server::Server) }).clone())
}

/// The path of the folder that the lab lies in: empty at the root, else with a slash before and none after.
pub fn base() -> String {
    let find = || {
        let base = document().document_element().and_then(|root| root.get_attribute("data-base"));
        base.unwrap_or_default().trim_end_matches('/').to_string()
    };
    BASE.with(|base| base.get_or_init(find).clone())
}

/// The address of one of the lab's pages or files, whose path begins with a slash.
pub fn at(path: &str) -> String {
    base() + path
}
