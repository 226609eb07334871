//! The live connection to a run, which goes on where it was, and the store that it fills; and when the list of runs has changed.
//!
//! How frames come belongs here; what they mean is in `state`.

use crate::parts::canvas::drawn;
use crate::parts::every::every;
use crate::parts::memo::memo;
use crate::source::{Ears, Link, is_tab, source};
use crate::state::{RunState, Topic};
use crate::words::t;
use leptos::prelude::*;
use moslim_shared::event::{Frame, Hello, RunStatus};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Shortest time between two redraws, milliseconds.
const FLUSH_MS: f64 = 50.0;
/// Longest time between two of them while there is news, milliseconds.
const LATEST_MS: f64 = 1_000.0;
/// First and longest wait before connecting again, milliseconds.
const BACKOFF_MS: (f64, f64) = (500.0, 10_000.0);
/// Time between two looks at the list of runs where nobody says that it has changed, and where somebody does.
const LOOK: Duration = Duration::from_secs(4);
const NET: Duration = Duration::from_secs(30);

/// What the connection pill says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Connecting,
    Live,
    Reconnecting,
    /// The run is over and the server closed the connection.
    Ended,
}

impl Connection {
    /// Name for style and for tests; [`Self::told`] is for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Reconnecting => "reconnecting",
            Self::Ended => "run ended",
        }
    }

    /// It in a word or two, in the reader's language.
    pub fn told(self) -> &'static str {
        match self {
            Self::Connecting => t("connecting"),
            Self::Live => t("live"),
            Self::Reconnecting => t("reconnecting"),
            Self::Ended => t("run ended"),
        }
    }
}

/// What the page knows of one run. The signal tells of new events at most twenty times a second, however many come.
#[derive(Clone, Copy)]
pub struct Run(RwSignal<RunState>);

impl Run {
    /// A run of which nothing is known yet.
    pub fn new() -> Self {
        Self(RwSignal::new(RunState::default()))
    }

    /// Reads the state; not reactive by itself.
    pub fn read<R>(self, f: impl FnOnce(&RunState) -> R) -> R {
        self.0.with_untracked(f)
    }

    /// Reads several states; not reactive by itself.
    pub fn read_all<R>(runs: &[Self], f: impl FnOnce(&[&RunState]) -> R) -> R {
        let guards: Vec<_> = runs.iter().map(|run| run.0.read_untracked()).collect();
        f(&guards.iter().map(|guard| &**guard).collect::<Vec<_>>())
    }

    /// A value that follows the state.
    pub fn memo<T: PartialEq + Send + Sync + 'static>(self, f: impl Fn(&RunState) -> T + Send + Sync + 'static) -> Memo<T> {
        memo(move || self.0.with(&f))
    }

    /// The revision of what `topic` shows; follows the run.
    pub fn revised(self, topic: Topic) -> u64 {
        self.0.with(|s| s.revision(topic))
    }

    /// Changes when what `topic` shows has changed, and only then. It has to be read: a memo that is only tracked follows nothing.
    pub fn revision(self, topic: Topic) -> Memo<u64> {
        self.memo(move |s| s.revision(topic))
    }

    /// A value that is made anew when what `topic` shows has changed, and only then.
    pub fn on<T: PartialEq + Send + Sync + 'static>(
        self,
        topic: Topic,
        f: impl Fn(&RunState) -> T + Send + Sync + 'static,
    ) -> Memo<T> {
        let revision = self.revision(topic);
        memo(move || {
            let _ = revision.get();
            self.read(&f)
        })
    }

    /// Folds a frame in without telling anyone yet.
    fn receive(self, frame: Frame) {
        let _ = self.0.try_update_untracked(|s| s.receive(frame));
    }

    /// What the stream needs to know; a default once the page is left.
    fn ask<R: Default>(self, f: impl FnOnce(&RunState) -> R) -> R {
        self.0.try_with_untracked(f).unwrap_or_default()
    }
}

/// What is wanted of a run.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Events, as the journal calls them; all where there are none.
    pub kinds: &'static [&'static str],
    /// Whether steps of the policy may come without what every class gets.
    pub brief: bool,
    /// Of the policy's steps before now, at most about so many.
    pub steps: usize,
}

impl Wanted {
    /// Everything, but of a very long run: more steps than this make no chart finer, and take seconds to come and to be read.
    pub const ALL: Self = Self { kinds: &[], brief: false, steps: 4_000 };
}

struct Inner {
    id: String,
    wanted: Wanted,
    run: Run,
    connection: Cell<Connection>,
    /// The same for the page.
    shown: RwSignal<Connection>,
    link: RefCell<Option<Box<dyn Link>>>,
    timer: Cell<Option<TimeoutHandle>>,
    attempts: Cell<i32>,
    stopped: Cell<bool>,
    pending: Cell<bool>,
}

thread_local! {
    /// Connections with news that the page was not told of yet, and when it was told last.
    static NEWS: RefCell<Vec<Weak<Inner>>> = const { RefCell::new(Vec::new()) };
    static TOLD: Cell<f64> = const { Cell::new(0.0) };
}

/// Keeps a run's store up to date until it is stopped.
#[derive(Clone)]
pub struct Stream(Rc<Inner>);

impl Stream {
    /// Connects to run `id`, and says in `shown` how the connection is.
    pub fn open(id: String, wanted: Wanted, run: Run, shown: RwSignal<Connection>) -> Self {
        let inner = Rc::new(Inner {
            id,
            wanted,
            run,
            connection: Cell::new(Connection::Connecting),
            shown,
            link: RefCell::new(None),
            timer: Cell::new(None),
            attempts: Cell::new(0),
            stopped: Cell::new(false),
            pending: Cell::new(false),
        });
        connect(&inner);
        Self(inner)
    }

    /// Connects now, whatever the backoff says; for a run that was resumed.
    pub fn reconnect(&self) {
        self.0.attempts.set(0);
        if self.0.connection.get() != Connection::Live {
            connect(&self.0);
        }
    }

    /// Closes the connection for good.
    pub fn stop(&self) {
        self.0.stopped.set(true);
        if let Some(timer) = self.0.timer.take() {
            timer.clear();
        }
        self.0.link.borrow_mut().take();
    }
}

fn say(inner: &Inner, connection: Connection) {
    if inner.connection.replace(connection) != connection {
        let _ = inner.shown.try_set(connection);
    }
}

fn connect(inner: &Rc<Inner>) {
    if inner.stopped.get() {
        return;
    }
    if let Some(timer) = inner.timer.take() {
        timer.clear();
    }
    let (greeting, heard, lost) = (Rc::downgrade(inner), Rc::downgrade(inner), Rc::downgrade(inner));
    let (run, Wanted { kinds, brief, steps }) = (inner.id.clone(), inner.wanted);
    let ears = Ears {
        hello: Box::new(move || {
            let after = greeting.upgrade().map_or(0, |inner| inner.run.ask(|s| s.last_seq()));
            let kinds = kinds.iter().map(ToString::to_string).collect();
            Hello { run: run.clone(), after, kinds, brief, steps, ..Hello::default() }
        }),
        frame: Box::new(move |frame| {
            if let Some(inner) = heard.upgrade() {
                deliver(&inner, frame);
            }
        }),
        closed: Box::new(move || {
            if let Some(inner) = lost.upgrade() {
                retry(&inner);
            }
        }),
    };
    match source().follow(Rc::new(ears)) {
        Some(link) => drop(inner.link.replace(Some(link))),
        None => retry(inner),
    }
}

/// Waits with full jitter, then connects again, unless the run is over.
fn retry(inner: &Rc<Inner>) {
    if inner.stopped.get() {
        return;
    }
    // A server may come back with more to say of a run that is over: a name, a resumption. A tab has said all.
    let over =
        is_tab() && inner.run.ask(|s| s.info().is_some_and(|i| !matches!(i.status, RunStatus::Running | RunStatus::Queued)));
    if over {
        say(inner, Connection::Ended);
        return;
    }
    let attempts = inner.attempts.get();
    inner.attempts.set(attempts + 1);
    let first = attempts == 0 && inner.run.ask(|s| s.info().is_none());
    say(inner, if first { Connection::Connecting } else { Connection::Reconnecting });
    let again = Rc::downgrade(inner);
    let timer = set_timeout_with_handle(
        move || {
            if let Some(inner) = again.upgrade() {
                inner.timer.set(None);
                connect(&inner);
            }
        },
        pause(attempts),
    );
    inner.timer.set(timer.ok());
}

/// How long to wait after so many attempts; the jitter keeps pages from coming back all at once.
fn pause(attempts: i32) -> Duration {
    let longest = (BACKOFF_MS.0 * 2f64.powi(attempts.min(10))).min(BACKOFF_MS.1);
    Duration::from_millis((longest * (0.5 + 0.5 * js_sys::Math::random())) as u64)
}

/// Calls `look` when the list of runs may have changed, until the page that asked for it is left. A server says when that is; a tab does not.
pub fn follow_list(look: impl Fn() + Copy + 'static) {
    let told = !is_tab();
    every(if told { NET } else { LOOK }, look);
    if told {
        listen(look, StoredValue::new_local(None));
    }
}

/// Follows the list over the page's socket. It is left, and not followed again, when what holds `link` is gone.
fn listen(look: impl Fn() + Copy + 'static, link: StoredValue<Option<Box<dyn Link>>, LocalStorage>) {
    // After two to four seconds: where there can be no socket, the list is as fresh as in a tab.
    let again = move || {
        let look_and_listen = move || {
            if !link.is_disposed() {
                look();
                listen(look, link);
            }
        };
        set_timeout(look_and_listen, pause(3));
    };
    let ears = Ears {
        hello: Box::new(|| Hello { list: true, ..Hello::default() }),
        frame: Box::new(move |frame| {
            if matches!(frame, Frame::Changed(_)) {
                look();
            }
        }),
        closed: Box::new(again),
    };
    match source().follow(Rc::new(ears)) {
        Some(own) => link.set_value(Some(own)),
        None => again(),
    }
}

/// Folds a frame into the store at once and tells the page at most twenty times a second, and not faster than it draws: of all runs together, so that what is made of
/// several of them is made once.
fn deliver(inner: &Rc<Inner>, frame: Frame) {
    if matches!(frame, Frame::Snapshot { .. }) {
        inner.attempts.set(0);
        say(inner, Connection::Live);
    }
    inner.run.receive(frame);
    if inner.pending.replace(true) {
        return;
    }
    let first = NEWS.with_borrow_mut(|news| {
        news.push(Rc::downgrade(inner));
        news.len() == 1
    });
    if first {
        let wait = (FLUSH_MS - (js_sys::Date::now() - TOLD.get())).clamp(0.0, FLUSH_MS);
        set_timeout(tell, Duration::from_millis(wait as u64));
    }
}

fn tell() {
    let now = js_sys::Date::now();
    // First it draws what it was told before, and rests for twice as long as that took, so that it answers whoever uses it meanwhile. One
    // that nobody looks at draws nothing.
    let told = TOLD.get();
    let busy = drawn().is_none_or(|at| now < at + 2.0 * (at - told));
    // A clock that was set back counts as a long time.
    if busy && (0.0..LATEST_MS).contains(&(now - told)) {
        set_timeout(tell, Duration::from_millis(FLUSH_MS as u64));
        return;
    }
    TOLD.set(now);
    for inner in NEWS.take().iter().filter_map(Weak::upgrade) {
        inner.pending.set(false);
        inner.run.0.notify();
    }
}
