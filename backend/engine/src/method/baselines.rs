//! Lines of reference that train nothing: what the SFT policy does with tags that it never learnt, and what choosing among
//! its answers reaches.

use super::setting::{Outcome, Ready, Trained};
use crate::evaluate::answer::Route;
use crate::model::TrainBackend;

/// The SFT policy with tags in its prompt.
pub fn tagged_sft<B: TrainBackend>(ready: &Ready<B>) -> Trained<B> {
    untrained(ready, Route::Tags)
}

/// The best of `n` answers of the SFT policy under the reward model. It costs `n` times the sampling when it answers.
pub fn best_of_n<B: TrainBackend>(ready: &Ready<B>, n: usize) -> Trained<B> {
    untrained(ready, Route::BestOf(n))
}

fn untrained<B: TrainBackend>(ready: &Ready<B>, route: Route) -> Trained<B> {
    let policies = vec![ready.reference.clone()];
    Trained { policies, route, outcome: Outcome::default(), policies_trained: 0, policies_kept: 1 }
}
