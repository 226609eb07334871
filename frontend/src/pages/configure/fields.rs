//! Where a setting is on the page, and what there is to say of it beside its row in the table.

use crate::parts::format::kl_penalty;
use crate::words::{said, t};
use moslim_shared::config::RunConfig;
use moslim_shared::config::settings::Setting;

/// The element that edits `path`; a problem inside of a list leads to the list.
pub fn element_id(path: &str) -> String {
    let head = path.split('[').next().unwrap_or(path);
    format!("field-{}", head.replace('.', "-"))
}

/// What there is to add to the help of a setting, as the configuration stands.
pub fn remark(setting: &Setting, config: &RunConfig) -> String {
    match setting.unused_by(config) {
        Some(who) => said("Not used by {0}.", &[who]),
        None if setting.path == "policy.optimizer" => kl_penalty(&config.policy).to_string(),
        None => String::new(),
    }
}

/// Unit and range, in a few words.
pub fn allowed(setting: &Setting) -> String {
    use moslim_shared::config::settings::Kind;
    let range = match setting.kind {
        Kind::Integer { .. } | Kind::Number { .. } | Kind::Optional { .. } => setting.allowed(),
        Kind::PerObjective | Kind::WeightVectors | Kind::Matrices => setting.allowed(),
        _ => String::new(),
    };
    match (range.is_empty(), setting.unit.is_empty()) {
        (false, false) => format!("{range} {}", t(setting.unit)),
        (false, true) => range,
        (true, _) => t(setting.unit).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::PolicyOptimizer;
    use moslim_shared::config::settings::find;
    use moslim_shared::method::Method;

    #[test]
    fn problems_lead_to_elements() {
        assert_eq!(element_id("policy.samples_per_prompt"), "field-policy-samples_per_prompt");
        assert_eq!(element_id("targets.held_out[0][1].class"), "field-targets-held_out");
    }

    #[test]
    fn remarks_say_who_does_not_use_a_setting_and_where_kl_is() {
        let mut config = RunConfig::default();
        config.policy.optimizer = PolicyOptimizer::Dapo;
        let remark = |path: &str, config: &RunConfig| remark(find(path).unwrap(), config);
        assert_eq!(remark("policy.ppo.gamma", &config), "Not used by DAPO.");
        assert_eq!(remark("policy.optimizer", &config), "It has no KL penalty.");
        config.method.kind = Method::BestOfN;
        assert_eq!(remark("policy.optimizer", &config), "Not used by Best of n.");
        assert_eq!(remark("seed", &config), "");
    }

    #[test]
    fn units_and_ranges_are_shown() {
        let allowed = |path: &str| allowed(find(path).unwrap());
        assert_eq!(allowed("policy.prompts"), "1 to 4096 prompts");
        assert_eq!(allowed("policy.clip"), "0.01 to 10");
        assert_eq!(allowed("name"), "");
    }
}
