//! Tests of control.

use super::*;
use crate::data::world::objectives;
use crate::evaluate::answer::Route;
use crate::evaluate::little::{self, ByWord, Little, alone, probe};
use crate::evaluate::plan::tests::{plan, questions};
use moslim_shared::summary::Wording;

#[test]
fn perfect_and_constant_answers_get_the_figures_they_deserve() {
    let questions = questions();
    let plan = plan(&questions);
    let perfect: Vec<Vec<usize>> = plan.probes.iter().map(|p| p.preference.0.iter().map(|t| t.unwrap_or(0)).collect()).collect();
    let constant = vec![vec![1; 4]; plan.len()];
    let examined = |graded: &[Vec<usize>]| Examination {
        graded: graded.to_vec(),
        model: graded.to_vec(),
        fluent: (0..plan.len()).map(|n| n % 4 != 0).collect(),
        texts: (0..plan.len()).map(|n| format!("Answer {}.", n / 2 * 2)).collect(),
        tokens: Vec::new(),
        claims: (0..plan.len()).map(|n| (n % 2 == 0).then_some(Claims { own: 1, all: 4 })).collect(),
    };
    let names = ["a", "b", "c"].map(String::from);
    let reports = |graded: &[Vec<usize>], other: &[Vec<usize>]| {
        let [report, _] = examined(graded).reports(&plan, (&questions, &names), &objectives(), Some(&examined(other)));
        report
    };
    let good = reports(&perfect, &constant);
    assert_eq!((good.joint_hit_rate, good.held_out_hit_rate, good.trained_hit_rate), (1.0, 1.0, 1.0));
    assert!((good.fluency - 0.75).abs() < 0.01);
    // Two of a kind each, but for the last where their number is odd.
    assert_eq!(good.diversity.unique, (plan.len() % 2) as f64 / plan.len() as f64);
    assert_eq!(good.on_topic, Some(0.25));
    for head in &good.heads {
        assert!((head.hit_rate - 1.0).abs() < 1e-12 && (head.spearman - 1.0).abs() < 1e-12);
        assert!(head.matrix.iter().enumerate().all(|(c, row)| row[c] == 1.0));
    }
    assert!(good.hit_rate_by_active.iter().all(|&h| h == 1.0) && good.hit_rate_by_active.len() >= 3);
    for (i, row) in good.cross_talk.iter().enumerate() {
        assert!((row[i] - 1.0).abs() < 1e-12, "what is asked for rises by one when it is asked for one higher");
    }
    // Two words each, whatever is asked for.
    assert_eq!(good.heads[1].words_told().as_deref(), Some("2 to 2"));
    // The short figures are those of the heads; parts and intervals surround them.
    assert_eq!(good.parts.iter().map(|p| (p.part.as_str(), p.n)).collect::<Vec<_>>(), [("a", 135), ("b", 135), ("c", 135)]);
    let ties = plan.probes.iter().filter(|p| p.purpose == Purpose::Joint && p.preference.asked().all(|(_, t)| t == 1));
    assert!((good.win_rate - (1.0 - 0.5 * ties.count() as f64 / 30.0)).abs() < 1e-12);
    assert!(good.parts.iter().all(|p| (p.figures.hit_rate - 1.0).abs() < 1e-12));
    let bad = reports(&constant, &constant);
    assert_eq!(bad.win_rate, 0.5);
    let [low, high] = bad.intervals.unwrap();
    assert!((low.hit_rate..=high.hit_rate).contains(&bad.mean_hit_rate()) && high.hit_rate - low.hit_rate < 1e-9);
    assert!(low.fluency < bad.fluency && bad.fluency < high.fluency);
    for head in &bad.heads {
        assert!((head.hit_rate - head.chance).abs() < 1e-12);
        assert_eq!(head.spearman, 0.0);
    }
}

#[test]
fn words_are_counted_by_the_class_that_was_asked_for_alone() {
    let questions = questions();
    let plan = plan(&questions);
    let achieved = vec![vec![0; 4]; plan.len()];
    // Of the second objective, an answer has as many words as the class asked for, and two more; all others have nine.
    let words = |p: &Probe| match p.purpose {
        Purpose::Single { objective: 1, class } => class + 2,
        _ => 9,
    };
    let texts: Vec<String> = plan.probes.iter().map(|p| "so ".repeat(words(p))).collect();
    let report = report(&plan, &achieved, &texts, &objectives());
    let counted = &report.heads[1].words;
    assert_eq!(*counted, (0..counted.len()).map(|c| c as f64 + 2.0).collect::<Vec<_>>());
    assert_eq!(report.heads[1].words_told().unwrap(), format!("2 to {}", counted.len() + 1));
    assert!(report.heads[0].words.iter().all(|&w| w == 9.0));
}

fn near(value: f64, want: f64) {
    assert!((value - want).abs() < 1e-12, "{value}, not {want}");
}

/// Objectives of two, three and five classes; what is asked for, what is achieved, and how many words say it.
#[test]
fn figures_of_heads_are_those_of_their_own_prompts() {
    let rows = [
        (alone(0, 0, 0), [0, 2, 0], 1),
        (alone(0, 0, 1), [0, 1, 1], 2),
        (alone(0, 0, 1), [1, 1, 1], 3),
        (alone(0, 0, 1), [1, 1, 4], 4),
        (alone(0, 2, 0), [0, 0, 4], 5),
        (alone(0, 2, 0), [1, 0, 1], 7),
        (alone(0, 2, 2), [0, 0, 2], 2),
        (alone(0, 2, 4), [0, 0, 3], 1),
        (probe(0, Purpose::Joint, [Some(1), Some(0), Some(2)]), [1, 1, 3], 9),
        (probe(0, Purpose::Trained, [Some(1), None, Some(2)]), [1, 0, 0], 9),
        (probe(0, Purpose::Trained, [Some(0), Some(1), Some(2)]), [0, 1, 4], 9),
        (probe(0, Purpose::HeldOut, [Some(1), Some(1), None]), [1, 1, 0], 9),
    ];
    let achieved: Vec<Vec<usize>> = rows.iter().map(|(_, achieved, _)| achieved.to_vec()).collect();
    let texts: Vec<String> = rows.iter().map(|&(.., words)| vec!["so"; words].join(" ")).collect();
    let plan = Plan { probes: rows.into_iter().map(|(probe, ..)| probe).collect() };
    let report = report(&plan, &achieved, &texts, &little::objectives());
    // Nobody asks for the second objective alone.
    let [a, c] = &report.heads[..] else { panic!("{:?}", report.heads) };
    assert_eq!((a.objective.as_str(), a.n, c.objective.as_str(), c.n), ("a", 4, "c", 4));
    // All of one class, two of three of the other; the mean over classes.
    assert_eq!((&a.matrix, &a.words), (&vec![vec![1.0, 0.0], vec![1.0 / 3.0, 2.0 / 3.0]], &vec![1.0, 3.0]));
    [a.hit_rate, a.within_one, a.chance].into_iter().zip([5.0 / 6.0, 1.0, 0.5]).for_each(|(value, want)| near(value, want));
    // Ranks 1, 3, 3, 3 and 1.5, 1.5, 3.5, 3.5; then 1.5, 1.5, 3, 4 and 4, 1, 2, 3.
    near(a.spearman, 1.0 / 3f64.sqrt());
    near(c.spearman, 0.5 / (4.5 * 5.0f64).sqrt());
    // Of five classes three are asked for: one is half one and half four off, one is met, one is one off.
    let none = vec![0.0; 5];
    let asked = [vec![0.0, 0.5, 0.0, 0.0, 0.5], vec![0.0, 0.0, 1.0, 0.0, 0.0], vec![0.0, 0.0, 0.0, 1.0, 0.0]];
    assert_eq!(c.matrix, [asked[0].clone(), none.clone(), asked[1].clone(), none, asked[2].clone()]);
    assert_eq!(c.words, [6.0, 0.0, 2.0, 0.0, 1.0]);
    [c.hit_rate, c.within_one, c.chance].into_iter().zip([0.2, 2.5 / 5.0, 0.2]).for_each(|(value, want)| near(value, want));
    // A half and two thirds of what trained pairs ask for: the mean over prompts.
    near(report.trained_hit_rate, 7.0 / 12.0);
    // Four of eight single wishes, none of two, and one of three at once.
    assert_eq!(report.hit_rate_by_active, [0.5, 0.0, 1.0 / 3.0]);
    // Least squares: of two classes the difference of the means; of five, 11 is the sum of squares around 1.5.
    let slopes = [[1.0 - 1.0 / 3.0, -1.0, 2.0], [0.0; 3], [-1.5 / 11.0, 0.0, 1.0 / 11.0]];
    report.cross_talk.iter().flatten().zip(slopes.as_flattened()).for_each(|(value, want)| near(*value, *want));
}

/// Five answers, of which the second and the last are to a question of the third part.
fn five() -> (Plan, Vec<EncodedQuestion>, [Examination; 2]) {
    let question = |part: usize| EncodedQuestion { text: String::new(), tokens: vec![], topic: 7, part };
    let probes = vec![
        probe(0, Purpose::Joint, [Some(1), None, Some(2)]),
        probe(1, Purpose::Joint, [None, Some(0), Some(4)]),
        probe(2, Purpose::Joint, [None, Some(1), Some(2)]),
        alone(0, 0, 1),
        probe(1, Purpose::HeldOut, [Some(1), None, Some(3)]),
    ];
    let examined = |graded: [[usize; 3]; 5], model: [[usize; 3]; 5]| Examination {
        graded: graded.map(Vec::from).to_vec(),
        model: model.map(Vec::from).to_vec(),
        fluent: vec![true, true, false, true, false],
        texts: ["a b a", "b", "...", "a b", ""].map(String::from).to_vec(),
        tokens: Vec::new(),
        claims: vec![Some(Claims { own: 1, all: 3 }), None, Some(Claims { own: 1, all: 1 }), None, None],
    };
    // By the grader the first meets all, the second and the third are half a range off; by the model nothing is met at once.
    let own = examined([[1, 0, 2], [0, 1, 4], [0, 2, 2], [1, 0, 0], [1, 0, 3]], [[0; 3], [0; 3], [0; 3], [1, 0, 0], [0; 3]]);
    let other = examined([[0, 0, 2], [0, 2, 4], [0, 1, 4], [0; 3], [0; 3]], [[0; 3]; 5]);
    (Plan { probes }, [0, 2, 0].map(question).to_vec(), [own, other])
}

#[test]
fn reports_are_by_the_grader_and_by_the_model_and_of_each_part() {
    let (plan, questions, [own, other]) = five();
    let names = ["x", "y", "z"].map(String::from);
    let [graded, model] = own.reports(&plan, (&questions, &names), &little::objectives(), Some(&other));
    // Two wins, and half a range each in the last.
    assert_eq!((graded.joint_hit_rate, graded.held_out_hit_rate, graded.win_rate), (1.0 / 3.0, 1.0, 2.5 / 3.0));
    assert_eq!((model.joint_hit_rate, model.held_out_hit_rate, model.win_rate), (0.0, 0.0, 0.5));
    for (report, wins) in [(&graded, 2.5), (&model, 1.5)] {
        report.win_rate_interval.into_iter().zip(wilson(wins, 3)).for_each(|(value, want)| near(value, want));
        assert_eq!((report.fluency, report.on_topic, report.empty), (3.0 / 5.0, Some(2.0 / 4.0), 2.0 / 5.0));
        // a, b and "..." are three of seven words; of three pairs one is there twice.
        let diversity = Diversity { distinct_1: 3.0 / 7.0, distinct_2: 2.0 / 3.0, unique: 1.0 };
        assert_eq!(report.diversity, diversity);
        // All questions are of one topic, of which every resample is the whole.
        let [low, high] = report.intervals.unwrap();
        assert!(low == high && low.joint_hit_rate == report.joint_hit_rate && low.win_rate == report.win_rate);
        assert_eq!(report.parts.iter().map(|p| (p.part.as_str(), p.n)).collect::<Vec<_>>(), [("x", 3), ("z", 2)]);
    }
    let of = |n: usize| graded.parts[n].figures;
    assert_eq!((of(0).joint_hit_rate, of(0).hit_rate, of(0).win_rate, of(0).held_out_hit_rate), (0.5, 1.0, 0.75, 0.0));
    assert_eq!((of(1).joint_hit_rate, of(1).hit_rate, of(1).win_rate, of(1).held_out_hit_rate), (0.0, 0.0, 1.0, 1.0));
    // With nobody to compare with nothing is won, and where nothing is claimed nothing is on topic.
    let silent = Examination { claims: vec![Some(Claims::default()), None, None, None, None], ..own };
    let [report, _] = silent.reports(&plan, (&questions, &[]), &little::objectives(), None);
    assert_eq!((report.win_rate, report.win_rate_interval, report.on_topic, report.parts.len()), (0.0, [0.0; 2], None, 0));
    assert_eq!(report.trained_hit_rate, 0.0, "nobody asks for trained pairs");
    // Nor has it a share of anything where nothing was asked.
    let [report, _] = written(vec![]).reports(&Plan { probes: vec![] }, (&[], &[]), &little::objectives(), None);
    assert_eq!((report.empty, report.diversity, report.trained_hit_rate), (0.0, Diversity::default(), 0.0));
}

fn config(temperature: f64) -> EvaluationConfig {
    EvaluationConfig { temperature, ..Default::default() }
}

/// The policy says "green grey", which the reward model sees as two thirds of (1, 0, 4), and the rules as (whether the question says green, 2, 4).
#[test]
fn what_is_planned_is_asked_graded_and_seen_by_the_model() {
    let lab = Little::new();
    let policies = [lab.policy(&[("<assistant>", "green"), ("green", "grey"), ("grey", "<eos>")], 64)];
    let x = lab.answering(&policies, &Route::Tags);
    let plan = Plan { probes: vec![alone(0, 0, 1), alone(1, 1, 0), probe(3, Purpose::Joint, [Some(1), None, Some(4)])] };
    let asked = |most: usize| examine(&x, &plan, &Grading::Gold(&ByWord), &config(0.0), most, 5, |_| Ok(())).unwrap();
    let whole = asked(8);
    assert_eq!(whole.graded, [[0, 2, 4], [1, 2, 4], [1, 2, 4]]);
    assert_eq!(whole.model, [[1, 0, 3]; 3]);
    assert_eq!((&whole.texts, &whole.fluent), (&vec!["green grey".to_string(); 3], &vec![true; 3]));
    assert_eq!(whole.tokens, vec![["green", "grey", "<eos>"].map(|word| lab.id(word)).to_vec(); 3]);
    // Words that the question has, where the first objective is asked for.
    assert_eq!(whole.claims, [Some(Claims { own: 0, all: 2 }), None, Some(Claims { own: 1, all: 2 })]);
    // Cut off before the end, it is not fluent.
    assert_eq!(asked(2).fluent, [false; 3]);
}

/// 256 prompts are asked at once; the next ones have other random numbers.
#[test]
fn prompts_are_asked_in_pieces_with_random_numbers_of_their_own() {
    let lab = Little::new();
    let policies = [lab.policy(&[], 64)];
    let x = lab.answering(&policies, &Route::Untagged);
    let plan = Plan { probes: (0..300).map(|n| alone(n % 4, 1, 0)).collect() };
    let mut told = Vec::new();
    let each = |n: usize| {
        told.push(n);
        Ok(())
    };
    // Bits 32 and 33 are those that tell the pieces apart.
    let examination = examine(&x, &plan, &Grading::Gold(&ByWord), &config(1.0), 2, (3 << 32) | 5, each).unwrap();
    assert_eq!((told, examination.graded.len()), (vec![256, 300], 300));
    let asks: Vec<(usize, Ask)> = plan.probes.iter().map(|p| (p.question, Ask::of(p.preference.clone()))).collect();
    let want = [(&asks[..256], (2 << 32) | 5), (&asks[256..], (1 << 32) | 5)].map(|(asks, seed)| {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 2, seed };
        x.answer(asks, &sampling).unwrap().into_iter().map(|a| a.tokens).collect::<Vec<_>>()
    });
    assert_eq!(examination.tokens, want.concat());
    // Who is told may stop it.
    let enough = |n: usize| if n < 256 { Ok(()) } else { Err(anyhow::anyhow!("enough")) };
    let stopped = examine(&x, &plan, &Grading::Gold(&ByWord), &config(1.0), 2, 5, enough);
    assert!(stopped.is_err());
}

/// An examination of which nothing is known but what was written.
fn written(tokens: Vec<Vec<u32>>) -> Examination {
    Examination { graded: vec![], model: vec![], fluent: vec![], texts: vec![], tokens, claims: vec![] }
}

/// A model that is sure that red begins an answer, and knows nothing of what follows.
#[test]
fn likelihood_is_the_mean_over_tokens_of_answers_all_over_the_plan() {
    let lab = Little::new();
    let model = lab.policy(&[("<assistant>", "red")], 64);
    let [red, green, eos] = ["red", "green", "<eos>"].map(|word| lab.id(word));
    let of = |tokens: Vec<Vec<u32>>| {
        let plan = Plan { probes: (0..tokens.len()).map(|n| alone(n % 4, 0, 0)).collect() };
        likelihood(&written(tokens), &plan, &model, (&lab.questions, &lab.tokenizer))
    };
    // Four tokens, of which two are one of all that can be written.
    let one = -(lab.tokenizer.outputs() as f64).ln();
    let mean = of(vec![vec![red], vec![], vec![red, green, eos]]).unwrap();
    assert!((mean - 2.0 * one / 4.0).abs() < 1e-4, "{mean}, not {}", one / 2.0);
    assert_eq!([of(vec![vec![], vec![]]), of(vec![])], [None, None]);
    // Every second answer begins with green, which has a score of 200 less. Of 128 all are read, of 129 every other.
    let alternating = |n: usize| of((0..n).map(|n| vec![[red, green][n % 2]]).collect()).unwrap();
    assert!((alternating(128) + 100.0).abs() < 1.0 && alternating(129).abs() < 1e-3, "{}", alternating(128));
}

/// The policy says "green", which is (whether the question says so, 2, 4) by the rules.
#[test]
fn prompts_are_worded_in_every_way_where_each_fits() {
    let lab = Little::new();
    let policies = [lab.policy(&[("<assistant>", "green"), ("green", "<eos>")], 50)];
    let long = EncodedQuestion { tokens: vec![lab.id("red"); 40], ..lab.questions[0].clone() };
    let questions = [lab.questions.clone(), vec![long]].concat();
    let plan = Plan {
        probes: vec![
            alone(0, 1, 2),
            probe(0, Purpose::Joint, [None, Some(2), Some(4)]),
            // With tags it would fit.
            probe(4, Purpose::Joint, [None, Some(2), Some(4)]),
            probe(0, Purpose::Joint, [Some(1), None, Some(4)]),
            probe(1, Purpose::Joint, [Some(1), Some(2), None]),
        ],
    };
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 2, seed: 1 };
    let worded = |route: &Route, plan: &Plan, count: usize| {
        let x = Answering { questions: &questions, ..lab.answering(&policies, route) };
        wordings(&x, plan, &Grading::Gold(&ByWord), count, &sampling).unwrap()
    };
    let all = |n: usize, hit_rate: f64| {
        [Wording::Tags, Wording::Reversed, Wording::Words, Wording::Missing].map(|wording| WordingReport { wording, n, hit_rate })
    };
    // Two of two classes, one of two, and two of two.
    assert_eq!(worded(&Route::Tags, &plan, 2), all(2, 3.0 / 4.0));
    assert_eq!(worded(&Route::Tags, &plan, 9), all(3, 5.0 / 6.0));
    assert!(worded(&Route::Untagged, &plan, 9).is_empty());
    assert!(worded(&Route::Tags, &Plan { probes: vec![alone(0, 1, 2)] }, 9).is_empty());
}
