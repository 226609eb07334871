use super::*;

fn events(bodies: Vec<EventBody>) -> Vec<Event> {
    bodies.into_iter().zip(1..).map(|(body, seq)| Event { seq, time: seq * 1000, body }).collect()
}

fn folded(bodies: Vec<EventBody>) -> RunState {
    let mut state = RunState::default();
    state.receive(Frame::Events { events: events(bodies) });
    state
}

fn policy(step: usize, matrix: Vec<Vec<Vec<f64>>>) -> EventBody {
    EventBody::Policy { part: None, total: 10, step: PolicyStep { step, matrix, ..Default::default() } }
}

fn info(last_seq: u64) -> RunInfo {
    RunInfo {
        id: "r".into(),
        name: String::new(),
        preset: "smoke".into(),
        seed: 1,
        status: RunStatus::Running,
        created: 0,
        last_seq,
        message: String::new(),
        config: RunConfig::default(),
        config_hash: String::new(),
        summary: None,
        milestones: Vec::new(),
        about: Default::default(),
    }
}

#[test]
fn an_event_seen_twice_counts_once() {
    let list = events(vec![policy(1, vec![]), policy(2, vec![])]);
    let mut state = RunState::default();
    state.receive(Frame::Events { events: list.clone() });
    state.receive(Frame::Events { events: list });
    assert_eq!(state.policy().len(), 2);
    assert_eq!(state.last_seq(), 2);
}

#[test]
fn a_resumed_stage_voids_what_came_after_its_checkpoint() {
    let state = folded(vec![
        EventBody::StageBegan { stage: Stage::Policy, part: None, from: 0, total: 10 },
        policy(1, vec![]),
        policy(2, vec![]),
        policy(3, vec![]),
        EventBody::Samples { part: None, step: 3, samples: vec![] },
        EventBody::StageBegan { stage: Stage::Policy, part: None, from: 2, total: 10 },
        policy(3, vec![]),
    ]);
    assert_eq!(state.policy().iter().map(|p| p.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(state.samples, None);
    assert_eq!(state.stages[Stage::Policy as usize].step, 3);
}

fn part(index: usize, name: &str) -> Option<Part> {
    Some(Part { index, count: 2, name: name.into() })
}

fn began(stage: Stage, from: usize) -> EventBody {
    EventBody::StageBegan { stage, part: None, from, total: 10 }
}

fn loss(stage: Stage, step: usize) -> EventBody {
    EventBody::Loss { stage, part: None, step, total: 10, loss: step as f64, rate: 1.0 }
}

#[test]
fn every_policy_has_its_own_curve_whatever_is_resumed() {
    let steps = |s: &RunState| s.policy().iter().map(|p| p.step).collect::<Vec<_>>();
    let began = |n, name, from| EventBody::StageBegan { stage: Stage::Policy, part: part(n, name), from, total: 10 };
    let step = |n, name, step| {
        let step = PolicyStep { step, ..Default::default() };
        EventBody::Policy { part: part(n, name), total: 10, step }
    };
    let samples = EventBody::Samples { part: part(1, "a"), step: 1, samples: vec![] };
    let ended = EventBody::StageEnded { stage: Stage::Policy, part: part(1, "a"), seconds: 2.0, cached: true };
    let mut bodies = vec![began(1, "a", 0), step(1, "a", 1), samples, ended.clone(), began(2, "b", 0)];
    let state = folded(bodies.clone());
    assert_eq!((steps(&state), state.samples.is_none()), (vec![], true));
    assert_eq!(state.stages[Stage::Policy as usize].part, part(2, "b"));
    assert_eq!(state.policies[&1].len(), 1);

    bodies.extend([step(2, "b", 1), step(2, "b", 2), step(2, "b", 3)]);
    // Resumed: the first policy comes from the cache, which voids nothing of it.
    bodies.extend([began(1, "a", 10), ended]);
    assert_eq!(steps(&folded(bodies.clone())), [1]);
    bodies.extend([began(2, "b", 2), step(2, "b", 3)]);
    assert_eq!(steps(&folded(bodies)), [1, 2, 3]);
}

#[test]
fn every_head_keeps_the_curve_of_its_own_reward_model() {
    let check = |stage, step, objectives: &[usize], qwk| EventBody::Validation {
        stage,
        part: None,
        step,
        objectives: objectives.to_vec(),
        qwk: vec![qwk],
    };
    let objectives = ["a", "b"].map(|id| Objective::new(id, id, "", &["0", "1"])).to_vec();
    let mut state = RunState { objectives, ..Default::default() };
    let stage = Stage::RewardModel;
    let began = |n, name| EventBody::StageBegan { stage, part: part(n, name), from: 0, total: 10 };
    let mut bodies = vec![check(Stage::HeldOutRewardModel, 5, &[0], 0.9), began(1, "a")];
    bodies.extend([check(stage, 5, &[0], 0.1), check(stage, 9, &[0], 0.2), began(2, "b"), check(stage, 5, &[1], 0.3)]);
    state.receive(Frame::Events { events: events(bodies) });
    let curve = |i: usize| state.validation[&(stage, i)].clone();
    assert_eq!((curve(0), curve(1)), (vec![(5.0, 0.1), (9.0, 0.2)], vec![(5.0, 0.3)]));
    assert_eq!(state.validation[&(Stage::HeldOutRewardModel, 0)], [(5.0, 0.9)]);
}

#[test]
fn supervised_training_of_a_policy_has_a_loss_curve_and_preference_sft_another() {
    let stage = Stage::Policy;
    let steps = |s: &RunState, stage| s.losses[&(stage, 0)].iter().map(|p| p.0 as usize).collect::<Vec<_>>();
    let mut bodies = vec![began(stage, 0), loss(stage, 4), loss(stage, 8), began(stage, 6)];
    assert_eq!(steps(&folded(bodies.clone()), stage), [4]);
    bodies.push(loss(stage, 8));
    assert_eq!(steps(&folded(bodies), stage), [4, 8]);
    let before = Stage::PreferenceSft;
    let bodies = vec![began(before, 0), loss(before, 5), began(stage, 0), policy(1, vec![]), began(before, 10), began(stage, 1)];
    let state = folded(bodies);
    assert_eq!((steps(&state, before), state.policy().len()), (vec![5], 1));
}

#[test]
fn the_frontier_grows_with_the_steps_and_the_front_is_that_of_the_last_evaluation() {
    let point = |step, kl| EventBody::KlFrontier { part: None, point: KlPoint { step, kl, ..Default::default() } };
    let mut bodies = vec![began(Stage::Policy, 0), point(1, 0.5), point(5, 2.0), began(Stage::Policy, 3), point(5, 3.0)];
    let state = folded(bodies.clone());
    assert_eq!(state.frontier.iter().map(|p| (p.step, p.kl)).collect::<Vec<_>>(), [(1, 0.5), (5, 3.0)]);
    bodies.extend([began(Stage::Evaluation, 0), EventBody::Front { report: FrontReport::default() }]);
    assert!(folded(bodies.clone()).front.is_some());
    bodies.push(began(Stage::Evaluation, 0));
    assert_eq!(folded(bodies).front, None);
}

#[test]
fn the_time_left_follows_the_recent_rate() {
    let state = folded(vec![
        EventBody::StageBegan { stage: Stage::Policy, part: None, from: 0, total: 10 },
        policy(1, vec![]),
        policy(2, vec![]),
    ]);
    assert_eq!(state.stages[Stage::Policy as usize].remaining(), Some(8.0));
    assert_eq!(state.stages[Stage::Sft as usize].remaining(), None);
}

#[test]
fn a_snapshot_from_an_older_store_starts_afresh() {
    let mut state = folded(vec![policy(1, vec![]), policy(2, vec![])]);
    let before = state.revision(Topic::Policy);
    state.receive(Frame::Snapshot { info: info(1) });
    assert!(state.policy().is_empty());
    assert_eq!(state.last_seq(), 0);
    assert!(state.revision(Topic::Policy) > before);
    state.receive(Frame::Snapshot { info: info(5) });
    assert_eq!(state.last_seq(), 0);
}

#[test]
fn only_the_topic_that_changed_moves() {
    let mut state = folded(vec![policy(1, vec![])]);
    let (policy, loss) = (state.revision(Topic::Policy), state.revision(Topic::Loss));
    let body = EventBody::Loss { stage: Stage::Sft, part: None, step: 1, total: 2, loss: 3.0, rate: 1.0 };
    state.apply(Event { seq: 2, time: 0, body });
    assert_eq!(state.revision(Topic::Policy), policy);
    assert_eq!(state.revision(Topic::Loss), loss + 1);
    assert_eq!(state.losses[&(Stage::Sft, 0)], [(1.0, 3.0)]);
}

#[test]
fn the_end_of_a_run_shows_in_its_status() {
    let mut state = RunState::default();
    state.receive(Frame::Snapshot { info: info(1) });
    let body = EventBody::Ended { outcome: Outcome::Failed, message: "out of memory".into() };
    state.apply(Event { seq: 1, time: 0, body });
    assert_eq!(state.info().map(|i| (i.status, i.message.clone())), Some((RunStatus::Failed, "out of memory".into())));
}
