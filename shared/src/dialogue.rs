//! Prompts of several turns, as one text. A prompt of one turn is that turn's text; of more, every turn stands behind who said it, as
//! transcripts of assistants have it: `\n\nHuman: ...\n\nAssistant: ...\n\nHuman: ...`.

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    System,
    User,
    Assistant,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub speaker: Speaker,
    pub text: String,
}

impl Speaker {
    /// What stands before a turn of theirs.
    pub fn mark(self) -> &'static str {
        match self {
            Self::System => "\n\nSystem: ",
            Self::User => "\n\nHuman: ",
            Self::Assistant => "\n\nAssistant: ",
        }
    }

    /// As chat templates call them.
    pub fn role(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// Who is called so in data sets.
    pub fn of(role: &str) -> Option<Self> {
        match role.to_ascii_lowercase().as_str() {
            "system" => Some(Self::System),
            "user" | "human" | "prompter" => Some(Self::User),
            "assistant" | "gpt" | "bot" | "model" => Some(Self::Assistant),
            _ => None,
        }
    }
}

/// Turns as one text.
pub fn joined(turns: &[Turn]) -> String {
    match turns {
        [only] if only.speaker == Speaker::User => only.text.clone(),
        turns => turns.iter().map(|t| format!("{}{}", t.speaker.mark(), t.text)).collect(),
    }
}

/// The turns of a prompt; one of the user's where it is of one turn.
pub fn turns(prompt: &str) -> Vec<Turn> {
    let marks = [Speaker::System, Speaker::User, Speaker::Assistant];
    let begins = |text: &str| marks.into_iter().find(|s| text.starts_with(s.mark()));
    let Some(mut speaker) = begins(prompt) else {
        return vec![Turn { speaker: Speaker::User, text: prompt.into() }];
    };
    let mut rest = &prompt[speaker.mark().len()..];
    let mut out = Vec::new();
    loop {
        let next = marks.into_iter().filter_map(|s| rest.find(s.mark()).map(|at| (at, s))).min_by_key(|(at, _)| *at);
        let Some((at, other)) = next else {
            out.push(Turn { speaker, text: rest.into() });
            return out;
        };
        out.push(Turn { speaker, text: rest[..at].into() });
        rest = &rest[at + other.mark().len()..];
        speaker = other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_become_one_text_and_turns_again() {
        let turn = |speaker, text: &str| Turn { speaker, text: text.into() };
        let several = [turn(Speaker::User, "Hi"), turn(Speaker::Assistant, "Yes?\n\nGo on."), turn(Speaker::User, "Tea?")];
        let text = joined(&several);
        assert_eq!(text, "\n\nHuman: Hi\n\nAssistant: Yes?\n\nGo on.\n\nHuman: Tea?");
        assert_eq!(turns(&text), several);
        let one = [turn(Speaker::User, "How do I make tea?")];
        assert_eq!((joined(&one).as_str(), turns("How do I make tea?")), ("How do I make tea?", one.to_vec()));
        let told = [turn(Speaker::System, "Be brief."), turn(Speaker::User, "")];
        assert_eq!(turns(&joined(&told)), told);
    }
}
