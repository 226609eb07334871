//! Conversations in records: transcripts with a mark before every turn, and lists of messages.

use crate::datum::Datum;
use crate::mapping::Turns;
use crate::records::Defect;
use moslim_shared::dialogue::{Speaker, Turn, joined};

/// A conversation's prompt, as one text, and its answer: the last turn.
///
/// # Errors
/// When its last turn is not the assistant's, or there is nothing before it.
pub fn answered(mut turns: Vec<Turn>) -> Result<(String, String), Defect> {
    let wrong = |detail: &str| Err(Defect::of("a conversation without an answer", detail));
    match turns.pop() {
        Some(Turn { speaker: Speaker::Assistant, text }) if !turns.is_empty() => Ok((prompt(turns), text.trim().into())),
        Some(Turn { speaker: Speaker::Assistant, .. }) => wrong("nothing stands before the assistant's turn"),
        Some(_) => wrong("the last turn is not the assistant's"),
        None => wrong("there are no turns"),
    }
}

/// Turns as a prompt.
pub fn prompt(turns: Vec<Turn>) -> String {
    let trimmed: Vec<Turn> = turns.into_iter().map(|t| Turn { text: t.text.trim().into(), ..t }).collect();
    joined(&trimmed)
}

/// The turns of a transcript. What stands before the first mark is the user's.
pub fn transcript(text: &str, marks: &Turns) -> Vec<Turn> {
    let known = [(marks.user.as_str(), Speaker::User), (marks.assistant.as_str(), Speaker::Assistant)];
    // Where a line is trimmed away behind a mark, the mark is there without its last blank.
    let next = |text: &str| {
        known
            .iter()
            .filter_map(|(mark, speaker)| text.find(mark.trim_end()).map(|at| (at, mark.trim_end().len(), *speaker)))
            .min_by_key(|(at, ..)| *at)
    };
    let mut out = Vec::new();
    let (mut speaker, mut rest) = (Speaker::User, text);
    let mut begun = false;
    loop {
        let found = next(rest);
        let (own, after) = found.map_or((rest, None), |(at, n, s)| (&rest[..at], Some((&rest[at + n..], s))));
        if begun || !own.trim().is_empty() {
            out.push(Turn { speaker, text: own.trim().into() });
        }
        let Some((more, other)) = after else { return out };
        (rest, speaker, begun) = (more, other, true);
    }
}

/// The turns of a list of messages: objects with `role` (or `from`) and `content` (or `value`).
///
/// # Errors
/// When it is none; says which message is wrong.
pub fn messages(value: &Datum) -> Result<Vec<Turn>, Defect> {
    let Datum::List(list) = value else {
        return Err(Defect::of("not a list of messages", format!("is {}; messages are a list", value.kind())));
    };
    let turn = |(n, message): (usize, &Datum)| {
        let wrong = |detail: String| Defect::of("not a list of messages", format!("message {n}: {detail}"));
        let field = |names: [&str; 2]| {
            names.iter().find_map(|name| message.get(name)).and_then(|v| match v {
                Datum::Text(text) => Some(text.clone()),
                _ => None,
            })
        };
        let role = field(["role", "from"]).ok_or_else(|| wrong("has no role".into()))?;
        let speaker = Speaker::of(&role)
            .ok_or_else(|| wrong(format!("its role is \"{role}\"; known are system, user (human) and assistant (gpt)")))?;
        let text = field(["content", "value"]).ok_or_else(|| wrong("has no content".into()))?;
        Ok(Turn { speaker, text })
    };
    list.iter().enumerate().map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_are_cut_at_their_marks() {
        let marks = Turns::default();
        let text = "\n\nHuman: Hi there\n\nAssistant: Yes?\n\nHuman: Tea\n\nor coffee?\n\nAssistant: Tea.";
        let (prompt, answer) = answered(transcript(text, &marks)).unwrap();
        assert_eq!(prompt, "\n\nHuman: Hi there\n\nAssistant: Yes?\n\nHuman: Tea\n\nor coffee?");
        assert_eq!(answer, "Tea.");
        let (prompt, answer) = answered(transcript("\n\nHuman: Tea?\n\nAssistant:", &marks)).unwrap();
        assert_eq!((prompt.as_str(), answer.as_str()), ("Tea?", ""));
        assert!(answered(transcript("\n\nHuman: Tea?", &marks)).is_err() && answered(transcript("", &marks)).is_err());
        // The first turn may stand without a mark.
        let inline = Turns { user: "\n<x>User\n".into(), assistant: "\n<x>Assistant\n".into() };
        let turns = transcript("Tea?\n<x>Assistant\nYes.\n<x>User\nThanks", &inline);
        assert_eq!(
            turns.iter().map(|t| (t.speaker.role(), t.text.as_str())).collect::<Vec<_>>(),
            [("user", "Tea?"), ("assistant", "Yes."), ("user", "Thanks")]
        );
    }

    #[test]
    fn messages_are_turns() {
        let read = |json: &str| messages(&crate::pick::Wanted::everything().parse(json.as_bytes()).unwrap());
        let turns = read(r#"[{"from": "human", "value": "Tea?"}, {"role": "assistant", "content": "Yes."}]"#).unwrap();
        assert_eq!(answered(turns).unwrap(), ("Tea?".into(), "Yes.".into()));
        for (json, words) in [
            ("{}", "messages are a list"),
            (r#"[{"content": "x"}]"#, "message 0: has no role"),
            (r#"[{"role": "judge", "content": "x"}]"#, "its role is \"judge\""),
            (r#"[{"role": "user", "content": null}]"#, "has no content"),
        ] {
            assert!(read(json).unwrap_err().to_string().contains(words), "{json}");
        }
    }
}
