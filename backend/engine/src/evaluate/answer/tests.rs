//! Tests of how methods answer.

use super::*;
use crate::data::world;
use crate::evaluate::little::{ByWord, Little};
use crate::model::architecture::Part;
use crate::text::{ChatFormat, Manner};
use moslim_shared::config::{TargetWording, WishPlace};

/// 8 tokens, the most probable ones.
const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 8, seed: 1 };

fn wants(text: &str, x: &Little) -> Ask {
    Ask::of(Preference::parse(text, &x.objectives).unwrap())
}

#[test]
fn the_nearest_policy_is_taken() {
    let objectives = world::objectives();
    let behaviour = vec![vec![4.0, 0.5, 0.5, 3.0], vec![0.2, 3.0, 2.0, 0.4]];
    let route = Route::Nearest { behaviour, weights: vec![], mixed: false };
    let ask = |text: &str| Ask::of(Preference::parse(text, &objectives).unwrap());
    assert_eq!(route.policy(&ask("helpfulness=3"), &objectives), 0);
    assert_eq!(route.policy(&ask("verbosity=1,honesty=2"), &objectives), 1);
    assert_eq!(route.policy(&Ask { offer: Some(1), ..ask("helpfulness=4") }, &objectives), 1);
    assert_eq!(Route::Tags.policy(&ask("helpfulness=3"), &objectives), 0);
}

/// Of five classes of helpfulness and three of honesty: 1.9 of 4 is less than 1 of 2, though 1.9 of 5 were more than 1 of 3, and 1.9 is more
/// than 1. Two are equally near: the first is taken.
#[test]
fn a_miss_counts_as_a_share_of_its_range() {
    let objectives = world::objectives();
    let near = vec![2.1, 0.0, 0.0, 0.0];
    let route = Route::Nearest { behaviour: vec![vec![4.0, 0.0, 1.0, 0.0], near.clone(), near], weights: vec![], mixed: false };
    let ask = Ask::of(Preference::parse("helpfulness=4,honesty=0", &objectives).unwrap());
    assert_eq!(route.policy(&ask, &objectives), 1);
}

#[test]
fn every_route_says_what_it_keeps_and_how_it_can_be_asked() {
    let weights = vec![vec![0.5, 0.5], vec![1.0, 0.0], vec![0.25, 0.75]];
    let nearest = |mixed| Route::Nearest { behaviour: vec![vec![0.0; 2]; 3], weights: weights.clone(), mixed };
    let scores = Route::Scores { mean: vec![], std: vec![] };
    let routes = [Route::Untagged, Route::Tags, scores, nearest(false), nearest(true), Route::BestOf(6)];
    assert_eq!(routes.each_ref().map(Route::samples), [1, 1, 1, 1, 1, 6]);
    // Policies for three trade-offs, or experts for two objectives.
    assert_eq!(routes.each_ref().map(|route| route.kept(2)), [1, 1, 1, 3, 2, 1]);
    use Wording::{Missing, Reversed, Tags, TagsAlone, Words, WordsAlone};
    let ways = routes.each_ref().map(|route| route.wordings(false).to_vec());
    let tags = vec![Tags, Reversed, Words, Missing];
    assert_eq!(ways, [vec![], tags, vec![Tags, Words, Missing], vec![], vec![], vec![]]);
    let mixed = routes.each_ref().map(|route| route.wordings(true).to_vec());
    assert_eq!(mixed[1], [Tags, TagsAlone, WordsAlone, Reversed, Words, Missing]);
    assert_eq!((&mixed[0], &mixed[2..]), (&ways[0], &ways[2..]));
    // Behind an offer are the weights of the policy, or those by which the best answer is chosen.
    let (lab, trade_offs) = (Little::new(), [vec![0.0, 1.0]]);
    let policies = [lab.policy(&[], 64)];
    let offered = |route: &Route, n: usize| {
        Answering { trade_offs: &trade_offs, ..lab.answering(&policies, route) }.offered_weights(n).cloned()
    };
    assert_eq!((offered(&routes[3], 2), offered(&routes[3], 3)), (Some(vec![0.25, 0.75]), None));
    assert_eq!((offered(&routes[5], 0), offered(&routes[5], 1)), (Some(vec![0.0, 1.0]), None));
}

#[test]
fn mixtures_are_of_the_experts_of_what_is_steered() {
    let lab = Little::new();
    let policies = [lab.policy(&[("<assistant>", "red")], 64), lab.policy(&[("<assistant>", "green")], 64)];
    let weights = vec![vec![1.0, 0.0, 0.0], vec![0.25, 0.0, 0.75]];
    let [single, mixed] = [false, true].map(|mixed| Route::Nearest { behaviour: vec![], weights: weights.clone(), mixed });
    // What says that red, or green, comes next: 50 in the expert that writes it, in the first row of the head.
    let says = |route: &Route, n: usize| {
        let head = route.take(n, &policies, &[0, 2]).weights(Part::Head);
        ["red", "green"].map(|word| head[lab.id(word) as usize])
    };
    assert_eq!((says(&mixed, 0), says(&mixed, 1)), ([50.0, 0.0], [12.5, 37.5]));
    assert_eq!((says(&single, 0), says(&single, 1)), ([50.0, 0.0], [0.0, 50.0]));
}

#[test]
fn prompts_say_what_is_asked_for_as_the_route_and_the_wording_have_it() {
    let lab = Little::new();
    let scores = Route::Scores { mean: vec![0.998, 1.0, 1.0], std: vec![0.0, 1.0, 4.0] };
    let own = wants("a=1,c=3", &lab);
    let weighed = Ask { weights: Some(vec![Some(0.6), None, Some(0.4)]), ..Ask::of(Preference::none(3)) };
    let said = |route: &Route, ask: Ask| {
        lab.tokenizer.spelt(&route.prompt(&lab.questions[0].tokens, &ask, &lab.tokenizer, &lab.objectives).unwrap()).unwrap()
    };
    let worded = |route: &Route, wording| said(route, Ask { wording, ..own.clone() });
    // In words it is said as no training prompt does: in the last wording, where there are any.
    let words = "<user> Always. Gamma: 3. red<assistant>";
    let bare = "<user> red<assistant>";
    assert_eq!(worded(&Route::Tags, Wording::Tags), "<user><a=1><c=3> red<assistant>");
    assert_eq!(worded(&Route::Tags, Wording::Reversed), "<user><c=3><a=1> red<assistant>");
    assert_eq!((worded(&Route::Tags, Wording::Words).as_str(), worded(&scores, Wording::Words).as_str()), (words, words));
    assert_eq!(worded(&Route::Tags, Wording::Missing), bare);
    assert_eq!(said(&Route::Tags, weighed.clone()), "<user> 6 . 4 red<assistant>");
    // (1 - 0.998) / 0.001, the smallest deviation there is, and (3 - 1) / 4.
    assert_eq!(said(&scores, own.clone()), "<user> 2.0 . 0.5 red<assistant>");
    assert_eq!(worded(&scores, Wording::Missing), "<user> . . . red<assistant>");
    assert_eq!(said(&scores, weighed), "<user> . . . red<assistant>");
    for route in [Route::Untagged, Route::BestOf(2), Route::Nearest { behaviour: vec![], weights: vec![], mixed: false }] {
        assert_eq!((worded(&route, Wording::Tags).as_str(), worded(&route, Wording::Words).as_str()), (bare, bare));
    }
    assert_eq!(Route::of_start(&lab.tokenizer), Route::Untagged);
}

/// Trained on tags, words and both, an off-the-shelf model is asked in each.
#[test]
fn tags_and_words_can_be_asked_in_apart() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/llama3/tokenizer.json");
    let format = ChatFormat {
        template: None,
        bos: None,
        eos: "<|im_end|>".into(),
        vocabulary: 300,
        wishes: WishPlace::System,
        wording: TargetWording::Mixed,
        added_tokens: false,
    };
    let objectives = crate::evaluate::little::objectives();
    let tokenizer = Tokenizer::chat(&std::fs::read_to_string(file).unwrap(), &format, &objectives).unwrap();
    let question = tokenizer.encode("What is tea?").unwrap();
    let preference = Preference(vec![Some(1), None, Some(3)]);
    let asked = |wording| {
        let ask = Ask { wording, ..Ask::of(preference.clone()) };
        Route::Tags.prompt(&question, &ask, &tokenizer, &objectives).unwrap()
    };
    let manner =
        |order: [usize; 3], said| tokenizer.prompt(&question, &preference, &Manner { order: order.to_vec(), said }).unwrap();
    assert_eq!(asked(Wording::Tags), manner([0, 1, 2], Said::Both(0)));
    assert_eq!(asked(Wording::Reversed), manner([2, 1, 0], Said::Both(0)));
    assert_eq!(asked(Wording::TagsAlone), manner([0, 1, 2], Said::Tags));
    assert_eq!(asked(Wording::WordsAlone), manner([0, 1, 2], Said::Words(0)));
    assert_eq!(asked(Wording::Words), manner([0, 1, 2], Said::Words(UNSEEN)));
    assert_ne!(asked(Wording::TagsAlone), asked(Wording::WordsAlone));
    assert_eq!(Route::of_start(&tokenizer), Route::Tags);
}

#[test]
fn prompts_fit_where_the_last_new_token_does() {
    let lab = Little::new();
    let policies = [lab.policy(&[], 8)];
    let x = lab.answering(&policies, &Route::Tags);
    // A word, two tags and two roles; then three words instead of one.
    let asks = [(0, wants("a=1,c=3", &lab)), (3, wants("a=1,c=3", &lab))];
    assert_eq!([3, 4].map(|new| x.fit(&asks[..1], new).unwrap()), [true, false]);
    assert_eq!([1, 2].map(|new| x.fit(&asks, new).unwrap()), [true, false]);
    assert!(x.fit(&[], 9).unwrap());
}

/// Policies that go on until the context ends: in how many words an answer has it shows how long its prompt was.
#[test]
fn every_ask_is_answered_by_its_own_policy_to_its_own_prompt() {
    let lab = Little::new();
    let forever = |word| lab.policy(&[("<assistant>", word), (word, word)], 10);
    let policies = [forever("red"), forever("green")];
    let nearest = Route::Nearest { behaviour: vec![], weights: vec![vec![]; 2], mixed: false };
    let answered = |route: &Route, asks: &[(usize, Ask)]| -> Vec<(&'static str, usize)> {
        let answers = lab.answering(&policies, route).answer(asks, &GREEDY).unwrap();
        let word = |a: &Answer| if a.tokens.iter().all(|&t| t == lab.id("red")) { "red" } else { "green" };
        answers.iter().map(|a| (word(a), a.tokens.len())).collect()
    };
    // Questions of three, one, two and one words, between two roles.
    let asks =
        [(3, 1), (0, 0), (1, 1), (2, 0)].map(|(question, n)| (question, Ask { offer: Some(n), ..Ask::of(Preference::none(3)) }));
    assert_eq!(answered(&nearest, &asks), [("green", 5), ("red", 7), ("green", 6), ("red", 7)]);
    let tagged = [(0, wants("a=1,b=1,c=3", &lab)), (1, wants("b=0", &lab))];
    assert_eq!(answered(&Route::Tags, &tagged), [("red", 4), ("red", 5)]);
}

/// The words of the best of answers of one word each.
fn best<B: Kernels>(x: &Answering<B>, asks: &[(usize, Ask)], words: &[&str]) -> Vec<String> {
    let answer = |word: &&str| {
        let mut tokens = x.tokenizer.encode(word).unwrap();
        tokens.push(x.tokenizer.eos);
        Answer { tokens, ended: true, ..Default::default() }
    };
    let asks: Vec<&(usize, Ask)> = asks.iter().collect();
    let best = x.best(&asks, words.iter().map(answer).collect()).unwrap();
    best.iter().map(|a| x.tokenizer.decode(&a.tokens).unwrap()).collect()
}

/// As the reward model has it, red is (0, 2, 4), green (1, 0, 1), blue (1, 1, 2) and grey (0, 0, 3).
#[test]
fn of_several_answers_the_first_of_the_best_is_given() {
    let (lab, route) = (Little::new(), Route::BestOf(3));
    let policies = [lab.policy(&[], 64)];
    let trade_offs = [vec![0.2, 0.7, 0.1], vec![0.0, 0.0, 1.0]];
    let x = Answering { trade_offs: &trade_offs, ..lab.answering(&policies, &route) };
    // Half, all and nothing of what is asked for; then a tie of two behind another.
    let asks = [(0, wants("a=1,c=2", &lab)), (1, wants("b=0", &lab))];
    assert_eq!(best(&x, &asks, &["green", "blue", "red", "red", "grey", "green"]), ["blue", "grey"]);
    // Less of the second objective is better: -1.0, 0.3, -0.3; and 1, 3, 2 of the third alone.
    let offered = [0, 1].map(|n| (0, Ask { offer: Some(n), ..Ask::of(Preference::none(3)) }));
    assert_eq!(best(&x, &offered, &["red", "green", "blue", "green", "grey", "blue"]), ["green", "grey"]);
    // The rules think otherwise: of the third objective green is 4 and red 3; of the first, it counts what the question says.
    let ruled = Answering { rules: Some(&ByWord), ..x };
    let asks = [(0, wants("c=4", &lab)), (1, wants("a=1", &lab)), (0, wants("a=1", &lab))];
    let words = ["red", "green", "blue", "red", "grey", "green", "green", "grey", "red"];
    assert_eq!(best(&ruled, &asks, &words), ["green", "grey", "red"]);
}

#[test]
fn best_of_n_asks_n_times() {
    let lab = Little::new();
    let policies = [lab.policy(&[("<assistant>", "red"), ("red", "<eos>")], 64)];
    let (three, many) = (Route::BestOf(3), Route::BestOf(4_000));
    let x = lab.answering(&policies, &three);
    let answers = x.answer(&[(0, wants("a=1", &lab)), (1, wants("c=2", &lab))], &GREEDY).unwrap();
    assert_eq!(answers.iter().map(|a| a.tokens[0]).collect::<Vec<_>>(), [lab.id("red"); 2]);
    // Of any tokens the one is given that is 3 of the third objective, which "grey" alone is. There are fewer than 300 to draw from.
    let any = [lab.policy(&[], 64)];
    let (x, sampling) = (lab.answering(&any, &many), Sampling { temperature: 1.0, max_new_tokens: 1, ..GREEDY });
    assert_eq!(x.answer(&[(0, wants("c=3", &lab))], &sampling).unwrap()[0].tokens, [lab.id("grey")]);
}

/// The reward model reads questions without tags, and an end behind every answer, once.
#[test]
fn answers_are_classified_after_their_own_questions() {
    let lab = Little::new();
    let frozen = lab.drawn_reward_model();
    let policies = [lab.policy(&[], 64)];
    let x = Answering { reward_model: &frozen, ..lab.answering(&policies, &Route::Tags) };
    let [red, green, blue, grey] = ["red", "green", "blue", "grey"].map(|word| lab.id(word));
    let [user, assistant, eos] = ["<user>", "<assistant>", "<eos>"].map(|token| lab.id(token));
    let said = |tokens: &[u32]| Answer { tokens: tokens.to_vec(), ..Default::default() };
    let (first, second) = (said(&[blue]), said(&[grey, eos]));
    let (ends, ended) = ([blue, eos], [grey, eos]);
    let groups = [
        Group { prompt: &[user, green, grey, assistant], answers: vec![&ends] },
        Group { prompt: &[user, red, assistant], answers: vec![&ended] },
    ];
    assert_eq!(x.classified(&[(1, &first), (0, &second)]), frozen.distributions(&groups));
}
