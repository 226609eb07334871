//! What is done to a run as a whole: it is started, resumed, cancelled, deleted, and had back.

use super::{Answer, Desk, Refused, known, said};
use moslim_engine::keep::{Job, carried, config_hash, journal};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Outcome, RunInfo, RunStatus};
use moslim_shared::listing::ListQuery;

/// What a list is asked for, as an address says it.
pub fn list_query(query: &str) -> ListQuery {
    let text = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        js_sys::decode_uri_component(value).ok().map(String::from)
    };
    let [filter, sort] = ["filter", "sort"].map(|name| text(name).unwrap_or_default());
    let limit = text("limit").and_then(|n| n.parse().ok());
    ListQuery { filter, sort, after: text("after"), limit, ..ListQuery::default() }
}

impl Desk {
    pub(super) fn check_free(&self) -> Result<(), Refused> {
        let Some(trainer) = &self.trainer else { return Ok(()) };
        let message = format!("run {} is training, and one run trains at a time; wait for it or cancel it", trainer.run);
        Err(Refused::new(409, message))
    }

    pub(super) fn start(&mut self, config: RunConfig) -> Answer {
        let problems = self.problems(&config);
        if !problems.is_empty() {
            return Err(Refused::invalid(problems));
        }
        self.check_free()?;
        let now = js_sys::Date::new_0().to_iso_string().as_string().unwrap_or_default();
        let digits: String = now.chars().filter(char::is_ascii_digit).take(14).collect();
        let (day, time) = digits.split_at_checked(8).unwrap_or((&digits, ""));
        let id = format!("{day}-{time}-{:04x}", (js_sys::Math::random() * 65_536.0) as u32);
        let job = Job::new(&id, config.clone(), self.files.clone());
        job.write_config().map_err(|e| Refused::kept(format!("{e:#}")))?;
        let info = RunInfo { config_hash: config_hash(&config), ..RunInfo::new(&id, &config, journal::now_ms()) };
        self.runs.insert(id.clone(), info);
        self.launch(&id)?;
        Ok((201, said(self.find(&id)?)?.1))
    }

    pub(super) fn resume(&mut self, run: &str) -> Answer {
        if self.find(run)?.status == RunStatus::Finished {
            return Err(Refused::new(409, format!("run {run} is finished; there is nothing to resume")));
        }
        self.check_free()?;
        self.launch(run)?;
        said(self.find(run)?)
    }

    /// Ends the trainer: it computes without looking up, and its checkpoint is kept.
    pub(super) fn cancel(&mut self, run: &str) -> Answer {
        let known = self.find(run)?.clone();
        if self.trainer.as_ref().is_none_or(|t| t.run != run) {
            return Err(Refused::new(409, format!("run {run} is not running; only a running run can be cancelled")));
        }
        self.end(Some((Outcome::Cancelled, "cancelled".into())));
        Ok((202, said(&known)?.1))
    }

    /// Takes a run out of the storage, for whose room it may be. As long as the tab is open it can be had back.
    pub(super) fn delete(&mut self, run: &str) -> Answer {
        if self.find(run)?.status == RunStatus::Running {
            return Err(Refused::new(409, format!("run {run} is training; wait for it or cancel it")));
        }
        let packed = carried::pack_run(self.files.as_ref(), run).map_err(|e| Refused::new(500, format!("{e:#}")))?;
        let folder = format!("runs/{run}");
        for name in self.files.list(&folder).map_err(Refused::kept)? {
            self.files.remove(&format!("{folder}/{name}")).map_err(Refused::kept)?;
        }
        self.runs.remove(run);
        self.asking.forget(run);
        self.trash.insert(run.into(), packed);
        Ok((204, String::new()))
    }

    pub(super) fn restore(&mut self, run: &str) -> Answer {
        let packed = self.trash.get(run).ok_or_else(|| Refused::new(404, format!("there is no run {run} in the trash")))?;
        carried::unpack_run(self.files.as_ref(), packed).map_err(|e| Refused::new(507, format!("{e:#}")))?;
        self.trash.remove(run);
        self.runs.extend(known(self.files.as_ref(), run).map(|info| (run.to_string(), info)));
        said(self.find(run)?)
    }
}
