//! Rules that grade how any text is written.

use crate::data::{Claims, Gold, Grades};
use moslim_shared::preference::Preference;

/// Most words of every class of length but the last.
const WORDS: [usize; 4] = [8, 18, 30, 45];
/// Least reading ease of every class but the first.
const EASE: [f64; 3] = [45.0, 65.0, 82.0];
/// What is said where someone speaks warmly, in lower case. Each counts once.
const WARM: [&str; 20] = [
    "happy to",
    "glad",
    "hope",
    "enjoy",
    "good luck",
    "great question",
    "thank",
    "please",
    "wonderful",
    "lovely",
    "of course",
    "don't worry",
    "feel free",
    "congratulations",
    "well done",
    "have fun",
    "dear",
    "my friend",
    "you've got this",
    "delighted",
];
/// Least share of runs of three words that no other equals, in a text of sense.
const DISTINCT: f64 = 0.7;

/// The gold grader of the style task.
#[derive(Debug, Clone, Default)]
pub struct Rules;

/// Questions of no split, each with an answer that was written by hand, for a model to see what is meant.
const EXAMPLES: &str = include_str!("examples.txt");

impl Gold for Rules {
    fn demonstrations(&self) -> Vec<(&'static str, &'static str)> {
        let parts = EXAMPLES.split("Q: ").skip(1);
        parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).map(|(q, a)| (q.trim(), a.trim())).collect()
    }

    fn grade(&self, _question: &str, answer: &str) -> Grades {
        let words = words(answer);
        let classes = vec![
            WORDS.iter().filter(|&&most| words.len() > most).count(),
            EASE.iter().filter(|&&least| ease(answer, &words) >= least).count(),
            structure(answer),
            warmth(answer).min(2),
            usize::from(answer.contains('?')),
        ];
        Grades { classes, fluent: makes_sense(answer, &words), claims: Claims::default() }
    }

    /// Eight words make neither paragraphs nor a list worth the name.
    fn meets(&self, _question: &str, preference: &Preference) -> bool {
        !(preference.0[0] == Some(0) && preference.0[2].is_some_and(|c| c > 0))
    }
}

/// Words in lower case, without what is set around them.
fn words(text: &str) -> Vec<String> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(bare).filter(|w| w.chars().any(char::is_alphabetic)).collect()
}

/// Syllables of an English word, about: groups of vowels, less a silent e at the end.
fn syllables(word: &str) -> usize {
    let vowel = |c: char| "aeiouy".contains(c);
    let mut groups = 0;
    let mut within = false;
    for c in word.chars() {
        if vowel(c) && !within {
            groups += 1;
        }
        within = vowel(c);
    }
    let silent = word.ends_with('e') && !word.ends_with("le") && groups > 1;
    (groups - usize::from(silent)).max(1)
}

/// Flesch's reading ease (1948): `206.835 - 1.015 words / sentences - 84.6 syllables / words`; 0 for a text without words.
fn ease(text: &str, words: &[String]) -> f64 {
    if words.is_empty() {
        return 0.0;
    }
    // A line of a list is a sentence, whether it ends with a stop or not.
    let ends = |line: &str| line.split(['.', '!', '?', ';', ':']).filter(|s| s.chars().any(char::is_alphabetic)).count();
    let sentences = text.lines().map(ends).sum::<usize>().max(1) as f64;
    let n = words.len() as f64;
    let syllables = words.iter().map(|w| syllables(w)).sum::<usize>() as f64;
    206.835 - 1.015 * n / sentences - 84.6 * syllables / n
}

/// Whether a line is an item of a list.
fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let marked = ["- ", "* ", "• ", "+ "].iter().any(|mark| line.starts_with(mark));
    let digits = line.chars().take_while(char::is_ascii_digit).count();
    marked || (1..=2).contains(&digits) && [". ", ") "].iter().any(|stop| line[digits..].starts_with(stop))
}

/// 0 for one paragraph, 1 for several, 2 for a list.
fn structure(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    if lines.iter().filter(|l| is_item(l)).count() >= 2 { 2 } else { usize::from(lines.len() > 1) }
}

/// Signs of warmth: exclamation marks, warm words, hearts and smiles.
fn warmth(text: &str) -> usize {
    let lower = text.to_lowercase();
    let phrases = WARM.iter().filter(|phrase| lower.contains(*phrase)).count();
    let smile = |c: char| matches!(c, '\u{1F600}'..='\u{1F64F}' | '\u{2764}' | '\u{1F49B}' | '\u{1F49A}' | '\u{1F499}');
    phrases + text.matches('!').count() + text.chars().filter(|c| smile(*c)).count()
}

/// Whether a text is words that do not go round in circles. It says nothing of whether they are true.
fn makes_sense(text: &str, words: &[String]) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic() || c.is_whitespace()).count();
    let mostly_words = 10 * letters >= 8 * text.chars().count();
    let threes: Vec<&[String]> = words.windows(3).collect();
    let distinct: std::collections::HashSet<&[String]> = threes.iter().copied().collect();
    let circles = threes.len() > 3 && (distinct.len() as f64) < DISTINCT * threes.len() as f64;
    let stutters = words.windows(3).any(|w| w[0] == w[1] && w[1] == w[2]);
    !words.is_empty() && mostly_words && !circles && !stutters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(text: &str) -> Vec<usize> {
        Rules.grade("", text).classes
    }

    #[test]
    fn there_is_an_example_of_every_class_and_none_is_about_a_question_of_the_task() {
        let examples = Rules.demonstrations();
        let objectives = super::super::objectives();
        for (i, objective) in objectives.iter().enumerate() {
            for class in 0..objective.class_count() {
                let n = examples.iter().filter(|(_, a)| grade(a)[i] == class).count();
                assert!(n >= 3, "{n} examples of {} {class}", objective.id);
            }
        }
        let splits = super::super::splits();
        let asked = [splits.train_questions, splits.validation_questions, splits.test_questions].concat();
        assert!(examples.iter().all(|(q, a)| asked.iter().all(|other| other.text != *q) && Rules.grade(q, a).fluent));
    }

    #[test]
    fn words_are_counted_to_the_edge_of_every_class() {
        for (n, class) in [(1, 0), (8, 0), (9, 1), (18, 1), (19, 2), (30, 2), (31, 3), (45, 3), (46, 4)] {
            assert_eq!(grade(&vec!["tea"; n].join(" "))[0], class, "{n} words");
        }
        assert_eq!(words("It's - well, 12 \"good\" eggs!"), ["it's", "well", "good", "eggs"]);
    }

    #[test]
    fn ease_is_fleschs() {
        let counted = |w: &str| syllables(w);
        assert_eq!(["tea", "water", "make", "little", "beautiful", "the", "rhythm"].map(counted), [1, 2, 1, 2, 3, 1, 1]);
        // Four words in two sentences, five syllables.
        let text = "Boil water. Add tea.";
        let want = 206.835 - 1.015 * 2.0 - 84.6 * 5.0 / 4.0;
        assert!((ease(text, &words(text)) - want).abs() < 1e-9);
        assert_eq!(grade(text)[1], 3);
        assert_eq!(grade("Institutional investigations necessitate extraordinary organisational commitment.")[1], 0);
        assert_eq!(ease("", &[]), 0.0);
    }

    #[test]
    fn layout_is_seen() {
        assert_eq!(grade("One. Two.")[2], 0);
        assert_eq!(grade("One.\n\nTwo.")[2], 1);
        assert_eq!(grade("Do this:\n- One.\n- Two.")[2], 2);
        assert_eq!(grade("1. One.\n2) Two.")[2], 2);
        assert_eq!(
            (grade("1. One.\nTwo.")[2], grade("2024 was dry.\n2023 was wet.")[2], grade("-5 is cold.\n-6 is colder.")[2]),
            (1, 1, 1)
        );
    }

    #[test]
    fn warmth_and_questions_are_seen() {
        assert_eq!(
            [grade("Boil it.")[3], grade("Boil it!")[3], grade("Boil it! Enjoy!")[3], grade("Happy to help, good luck.")[3]],
            [0, 1, 2, 2]
        );
        assert_eq!([grade("Boil it.")[4], grade("Boil it. Is it for two?")[4]], [0, 1]);
    }

    #[test]
    fn sense_is_words_that_do_not_go_round() {
        let sense = |text: &str| Rules.grade("", text).fluent;
        assert!(sense("Boil the water, then add the tea and wait four minutes."));
        assert!(sense("- Boil the water.\n- Add tea."));
        assert!(!sense("") && !sense("{}[]() 12 34 <>") && !sense("tea tea tea and more"));
        assert!(!sense("boil an egg then boil an egg then boil an egg then boil an egg then boil an egg"));
    }

    #[test]
    fn a_list_does_not_fit_into_eight_words() {
        let asks = |length, structure| Preference(vec![length, None, structure, None, None]);
        assert!(!Rules.meets("", &asks(Some(0), Some(2))) && Rules.meets("", &asks(Some(0), Some(0))));
        assert!(Rules.meets("", &asks(None, Some(2))) && Rules.meets("", &asks(Some(1), Some(2))));
    }
}
