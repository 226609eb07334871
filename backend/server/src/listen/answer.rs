//! The requests of a connection, and their answers: whether one is still being sent, and whether what was handed out of it is taken.

use super::{Entered, Times};
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Most bytes of an answer that are handed out at a time. Whoever sends them lets go of an answer once it has the last of it, sent or not.
const PIECE: usize = 64 << 10;

/// The requests of a connection.
#[derive(Default)]
pub(super) struct Requests {
    /// How many there were.
    count: u64,
    /// How many of them are being answered.
    open: usize,
    /// Those of whose answer a part was handed out and nothing was asked for since, by their numbers, and since when.
    standing: BTreeMap<u64, Instant>,
}

impl Requests {
    /// Whether there was one.
    pub(super) fn any(&self) -> bool {
        self.count > 0
    }
}

/// A request that is being answered, as long as this lives.
struct Asked {
    requests: watch::Sender<Requests>,
    number: u64,
}

impl Asked {
    fn begin(requests: &watch::Sender<Requests>) -> Self {
        let mut number = 0;
        requests.send_modify(|requests| {
            requests.count += 1;
            requests.open += 1;
            number = requests.count;
        });
        Self { requests: requests.clone(), number }
    }

    /// Notes that a part of the answer was handed out, or that more is asked for. Nobody is woken for that.
    fn note(&self, handed_out: bool) {
        self.requests.send_if_modified(|requests| {
            if handed_out {
                requests.standing.insert(self.number, Instant::now());
            } else {
                requests.standing.remove(&self.number);
            }
            false
        });
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.requests.send_modify(|requests| {
            requests.open -= 1;
            requests.standing.remove(&self.number);
        });
    }
}

/// What a request holds of its connection until it has been answered. A websocket is served when the answer has been sent, and over HTTP/1
/// when the connection's own task has ended: who serves it holds this.
#[derive(Clone)]
pub struct Held {
    place: Arc<Entered>,
    asked: Arc<Asked>,
}

impl Held {
    pub(super) fn new(place: Arc<Entered>, requests: &watch::Sender<Requests>) -> Self {
        Self { place, asked: Arc::new(Asked::begin(requests)) }
    }

    /// Somebody who is known asks over this connection: from now on it makes room for nobody.
    pub fn prove(&self) {
        self.place.proven.store(true, Ordering::Relaxed);
    }
}

/// The body of an answer: the request is answered when all of it was handed out, or nobody takes it any more.
pub(super) struct Answer {
    body: Body,
    /// What the body has given and was not handed out yet.
    rest: Bytes,
    held: Held,
}

impl Answer {
    pub(super) fn new(body: Body, held: Held) -> Self {
        Self { body, rest: Bytes::new(), held }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.held.asked.note(false);
        if this.rest.is_empty() {
            let next = ready!(Pin::new(&mut this.body).poll_frame(context));
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        this.held.asked.note(true);
        let piece = this.rest.split_to(PIECE.min(this.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// Waits until nothing was asked, and nothing was being answered or sent, for as long as the head of a request may take.
pub(super) async fn rested(requests: &mut watch::Receiver<Requests>, sending: &AtomicBool, time: Duration) {
    loop {
        let open = requests.borrow_and_update().open;
        let next = requests.changed();
        let told = if open > 0 { Ok(next.await) } else { timeout(time, next).await };
        match told {
            Ok(Ok(())) => {}
            // The end of an answer that has been handed out waits for whoever takes it.
            Err(_) if sending.load(Ordering::Relaxed) => {}
            _ => return,
        }
    }
}

/// Waits until a part of an answer stands for too long. What the connection itself does not take is not meant: there its patience ends.
/// Over HTTP/2 it takes everything, and an answer waits for its own reader.
pub(super) async fn stalled(requests: &watch::Receiver<Requests>, sending: &AtomicBool, times: Times) {
    loop {
        sleep(times.head).await;
        let since = requests.borrow().standing.values().min().copied();
        if since.is_some_and(|since| since.elapsed() > times.taking) && !sending.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Register;
    use super::*;
    use futures_util::StreamExt;
    use futures_util::stream::{iter, pending};
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::net::IpAddr;

    fn answer(body: Body) -> (Answer, watch::Receiver<Requests>) {
        let place = Arc::new(Register::default()).enter(IpAddr::from([127, 0, 0, 1]), 1).unwrap();
        let (asking, requests) = watch::channel(Requests::default());
        (Answer::new(body, Held::new(Arc::new(place), &asking)), requests)
    }

    /// How much is handed out next; `None` where that has an end.
    async fn next(answer: &mut Answer) -> Option<usize> {
        let frame = poll_fn(|context| Pin::new(&mut *answer).poll_frame(context)).await?;
        Some(frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test]
    async fn an_answer_is_handed_out_in_pieces_and_says_how_much_is_left() {
        let (mut answer, requests) = answer(Body::from(vec![7; 2 * PIECE + 10]));
        let left = |answer: &Answer| answer.size_hint().exact().unwrap() as usize;
        assert_eq!(left(&answer), 2 * PIECE + 10);
        for (piece, rest) in [(PIECE, PIECE + 10), (PIECE, 10), (10, 0)] {
            assert!(!answer.is_end_stream());
            assert_eq!((next(&mut answer).await, left(&answer)), (Some(piece), rest));
        }
        assert!(answer.is_end_stream() && next(&mut answer).await.is_none());
        assert_eq!(requests.borrow().open, 1);
        drop(answer);
        assert!(requests.borrow().open == 0 && requests.borrow().any());
    }

    #[tokio::test]
    async fn what_is_handed_out_stands_until_more_is_asked_for() {
        let parts = iter([Ok::<_, Infallible>("one"), Ok("two")]).chain(pending());
        let (mut answer, requests) = answer(Body::from_stream(parts));
        let standing = || requests.borrow().standing.len();
        assert_eq!((next(&mut answer).await, standing()), (Some(3), 1));
        assert_eq!((next(&mut answer).await, standing()), (Some(3), 1));
        let more = timeout(Duration::from_millis(1), next(&mut answer)).await;
        assert!(more.is_err() && standing() == 0, "an answer that has nothing to say stands");
        let (mut other, requests) = self::answer(Body::from("all"));
        assert_eq!(next(&mut other).await, Some(3));
        drop(other);
        assert!(requests.borrow().standing.is_empty(), "an answer that is over stands");
    }
}
