//! Events of a journal as the text of frames.

use crate::ready::Wanted;
use moslim_shared::event::{Event, EventBody};

/// Most bytes of a frame. A single event may be larger and then is a frame of its own.
const FRAME_BYTES: usize = 256 << 10;

/// A frame with the number of its channel around it, where it has one.
pub fn addressed(frame: String, number: Option<u32>) -> String {
    match number {
        Some(number) => format!(r#"{{"channel":{number},"frame":{frame}}}"#),
        None => frame,
    }
}

/// What the journal calls an event, of its text.
fn kind_of(event: &str) -> &str {
    event.split_once(r#""body":{""#).and_then(|(_, body)| body.split_once('"')).map_or("", |(kind, _)| kind)
}

/// [`Frame::Events`] as text, split by size, of the events that are wanted. Each event is written once, and the frame is put together
/// around it.
pub fn frames(events: Vec<Event>, wanted: &Wanted, number: Option<u32>) -> anyhow::Result<Vec<String>> {
    let Wanted { kinds, brief, thinned } = wanted;
    const HEAD: &str = r#"{"events":{"events":["#;
    let mut frames = Vec::new();
    let mut frame = String::new();
    for mut event in events {
        if let EventBody::Policy { step, total, .. } = &mut event.body {
            if thinned.is_some_and(|thinned| thinned.leaves_out(event.seq, step.step, *total)) {
                continue;
            }
            if *brief {
                step.shorten();
            }
        }
        let text = serde_json::to_string(&event)?;
        if !kinds.is_empty() && !kinds.iter().any(|kind| kind == kind_of(&text)) {
            continue;
        }
        if !frame.is_empty() && frame.len() + text.len() + 3 > FRAME_BYTES {
            frames.push(std::mem::take(&mut frame) + "]}}");
        }
        frame.push_str(if frame.is_empty() { HEAD } else { "," });
        frame.push_str(&text);
    }
    if !frame.is_empty() {
        frames.push(frame + "]}}");
    }
    Ok(frames.into_iter().map(|frame| addressed(frame, number)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Thinned;
    use moslim_shared::event::{Addressed, Frame, PolicyStep};

    fn event(seq: u64, size: usize) -> Event {
        Event { seq, time: 0, body: EventBody::Note { text: "x".repeat(size) } }
    }

    #[test]
    fn frames_hold_all_events_in_order_and_keep_to_the_limit() {
        let events: Vec<Event> = (1..=50).map(|seq| event(seq, if seq == 9 { 2 * FRAME_BYTES } else { 10_000 })).collect();
        let frames = frames(events.clone(), &Wanted::default(), None).unwrap();
        let mut seen = Vec::new();
        for text in &frames {
            let Frame::Events { events } = serde_json::from_str(text).unwrap() else { panic!("an events frame was expected") };
            assert!(text.len() <= FRAME_BYTES || events.len() == 1, "{}", text.len());
            seen.extend(events);
        }
        assert_eq!(seen, events);
        assert!(frames.len() < 10, "{}", frames.len());
    }

    #[test]
    fn only_the_kinds_that_are_wanted_come_on_their_channel() {
        let mut events: Vec<Event> = (1..=3).map(|seq| event(seq, 10)).collect();
        events.push(Event { seq: 4, time: 0, body: EventBody::Answering { done: 1, total: 2 } });
        // What a text contains is no kind.
        events.push(Event { seq: 5, time: 0, body: EventBody::Note { text: r#""body":{"answering""#.into() } });
        let seqs = |kinds: &[&str]| -> Vec<u64> {
            let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            let read = |text: &String| -> Vec<Event> {
                let Addressed { channel: 7, frame: Some(Frame::Events { events }) } = serde_json::from_str(text).unwrap() else {
                    panic!("events on channel 7 were expected")
                };
                events
            };
            let wanted = Wanted { kinds, ..Wanted::default() };
            frames(events.clone(), &wanted, Some(7)).unwrap().iter().flat_map(read).map(|e| e.seq).collect()
        };
        assert_eq!((seqs(&["answering"]), seqs(&["note", "loss"])), (vec![4], vec![1, 2, 3, 5]));
        assert_eq!((seqs(&[]), seqs(&["loss"])), (vec![1, 2, 3, 4, 5], vec![]));
    }

    #[test]
    fn of_steps_that_were_thinned_those_that_are_wanted_come_and_everything_else_does() {
        let step = |seq: u64| {
            let step = PolicyStep { step: seq as usize, ..Default::default() };
            Event { seq, time: 0, body: EventBody::Policy { part: None, total: 9, step } }
        };
        let events = vec![step(1), step(2), event(3, 5), step(4), step(5), step(6), step(7)];
        let wanted = Wanted { thinned: Some(Thinned { until: 6, every: 4 }), ..Wanted::default() };
        let frames = frames(events, &wanted, None).unwrap();
        let Frame::Events { events } = serde_json::from_str(&frames[0]).unwrap() else { panic!("events were expected") };
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 3, 4, 6, 7]);
    }

    #[test]
    fn who_draws_curves_is_told_steps_without_their_classes() {
        let matrix = vec![vec![vec![0.25, 0.75], vec![1.0, 0.0]], vec![vec![0.0; 2]; 2]];
        let step = PolicyStep {
            step: 3,
            reward: 0.5,
            distributions: vec![vec![0.5, 0.5]; 2],
            on_target: vec![0.25, 0.0],
            matrix,
            ..Default::default()
        };
        let brief = PolicyStep { distributions: Vec::new(), matrix: vec![vec![vec![2.0]], vec![vec![0.0]]], ..step.clone() };
        let events =
            [Event { seq: 1, time: 7, body: EventBody::Policy { part: None, total: 9, step: step.clone() } }, event(2, 5)];
        for (wanted, want) in [(false, step), (true, brief)] {
            let frames = frames(events.to_vec(), &Wanted { brief: wanted, ..Wanted::default() }, None).unwrap();
            let Frame::Events { events: told } = serde_json::from_str(&frames[0]).unwrap() else {
                panic!("events were expected")
            };
            assert_eq!(told[0], Event { seq: 1, time: 7, body: EventBody::Policy { part: None, total: 9, step: want } });
            assert_eq!(told[1], events[1]);
        }
    }
}
