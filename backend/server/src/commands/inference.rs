//! `moslim-lab inference`: a run at work for the server. Requests come as lines of JSON, answers go as lines of JSON; it ends
//! with its input.

use crate::cli::WorkerArgs;
use crate::commands::{print_json, read_target};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::inference::{Asked, Told};
use crate::launch::limits;
use moslim_engine::progress::Stop;
use moslim_engine::run::Generator;
use moslim_shared::config::DeviceChoice;
use moslim_shared::inference::GenerateEvent;
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Requests that have not been answered, and whether they are still wanted.
type Wanted = Arc<Mutex<HashMap<u64, Arc<Stop>>>>;

/// Answers until its input ends.
///
/// # Errors
/// When its output is closed, or its memory cannot be limited.
pub fn run(args: &WorkerArgs) -> Result<(), Failure> {
    limits::limit_memory()?;
    // Training goes first.
    #[cfg(unix)]
    let _ = rustix::process::nice(10);
    let folder = DataFolder::resolve(Some(args.data.clone())).run(&args.run);
    let mut generator = match Generator::load(&folder, DeviceChoice::Auto) {
        Ok(generator) => generator,
        Err(error) => return print_json(&Told::Broken { message: format!("run {} cannot answer: {error:#}", args.run) }),
    };
    print_json(&Told::Ready { objectives: generator.objectives().to_vec() })?;
    let wanted = Wanted::default();
    let (sender, requests) = mpsc::channel();
    let reading = wanted.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(asked) = serde_json::from_str::<Asked>(&line) else { continue };
            let mut wanted = reading.lock().unwrap_or_else(PoisonError::into_inner);
            match &asked {
                Asked::Stop { number } => {
                    if let Some(stop) = wanted.remove(number) {
                        stop.cancel();
                    }
                    continue;
                }
                Asked::Generate { number, .. } | Asked::Score { number, .. } => wanted.insert(*number, Arc::default()),
            };
            drop(wanted);
            if sender.send(asked).is_err() {
                break;
            }
        }
        // Nobody is left to answer, whatever is being computed.
        std::process::exit(0);
    });
    // Of the process's time, what answers have told already.
    let mut told = 0.0;
    for asked in requests {
        if generator.is_outdated()
            && let Ok(newer) = Generator::load(&folder, DeviceChoice::Auto)
        {
            generator = newer;
        }
        answer(&generator, asked, &wanted, &mut told)?;
    }
    Ok(())
}

/// Seconds of processor that this process has taken so far, all threads together; `None` where the system does not tell.
fn processor() -> Option<f64> {
    #[cfg(unix)]
    {
        let taken = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(taken.tv_sec as f64 + taken.tv_nsec as f64 / 1e9)
    }
    #[cfg(not(unix))]
    {
        None
    }
}

fn answer(generator: &Generator, asked: Asked, wanted: &Wanted, told: &mut f64) -> Result<(), Failure> {
    let stop_of = |number: u64| wanted.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
    let number = match asked {
        Asked::Generate { number, request } => {
            let Some(stop) = stop_of(number) else { return Ok(()) };
            let mut lost = None;
            generator.answer(&request, &stop, &mut |mut event| {
                // Nobody hears the end of what was not waited for: the next answer tells of it.
                if let GenerateEvent::Ended { processor_seconds, .. } = &mut event
                    && stop.asked().is_none()
                    && let Some(now) = processor()
                {
                    *processor_seconds = Some(now - *told);
                    *told = now;
                }
                if let Err(error) = print_json(&Told::Event { number, event }) {
                    stop.cancel();
                    lost = Some(error);
                }
            });
            if let Some(error) = lost {
                return Err(error);
            }
            number
        }
        Asked::Score { number, pairs, target } => {
            if stop_of(number).is_none() {
                return Ok(());
            }
            let preference = read_target(&target, generator.objectives()).map_err(|e| e.to_string());
            let scores = preference.and_then(|preference| {
                let asked = (preference.active() > 0).then_some(&preference);
                generator.score(&pairs, asked).map_err(|e| format!("{e:#}"))
            });
            print_json(&match scores {
                Ok(scores) => Told::Scores { number, scores },
                Err(message) => Told::Refused { number, message },
            })?;
            number
        }
        Asked::Stop { .. } => return Ok(()),
    };
    wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    Ok(())
}
