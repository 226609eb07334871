//! What a job of a cluster runs: a shell script, the same for all tasks of an array.

use super::Profile;
use crate::launch::{Launch, quoted};
use anyhow::Result;
use std::ffi::OsStr;
use std::path::Path;

/// The script of an array: task N starts the launches of the Nth of `jobs`, one after the other. Launches are numbered through
/// all of them. What a job has done is written beside its output, from `own` on.
pub(super) fn script(profile: &Profile, program: &Path, jobs: &[Vec<Launch>], own: &Path) -> Result<String> {
    // What `module` does is set up for a login shell.
    let shell = if profile.modules.is_empty() { "/bin/sh" } else { "/bin/bash -l" };
    let mut out =
        format!("#!{shell}\n# Written by moslim-lab: a task for each line of the first case, a run for each of the second.\n");
    out += &format!("own={}\"-$SLURM_ARRAY_TASK_ID\"\n", quoted([own])?);
    // `srun` hands on to its tasks neither every signal nor the number of cores: the step that it began last is told.
    let several = profile.ranks > 1;
    out += if several {
        "export SRUN_CPUS_PER_TASK=\"${SLURM_CPUS_PER_TASK:-1}\"\n\
         send() {\n    step=$(squeue -h -s -j \"$SLURM_JOB_ID\" -o %i | grep '[.][0-9][0-9]*$' | tail -n 1)\n    \
         [ -n \"$step\" ] && scancel --signal=\"$1\" \"$step\"\n}\n"
    } else {
        "send() { kill -\"$1\" \"$child\"; }\n"
    };
    // The same signal a second time ends a run at once, so it is sent once; but a step may not be there yet. What is wished of one run comes
    // by a signal that ends nobody who does not listen yet; a disk of a network is asked anew when its folder has changed.
    out += r#"child= told= again= over= worst=0
tell() {
    while [ -n "$child" ] && [ "$told" != "$1" ] && kill -0 "$child" 2>/dev/null; do
        if send "$1"; then told=$1; else sleep 1; fi
    done
}
ended() { grep -q "^$1 " "$own.ended" 2>/dev/null; }
wished() { cat "$own.$1.stop" 2>/dev/null; }
trap 'again=TERM; tell TERM' USR1
trap 'over=TERM; tell TERM' TERM
trap 'over=INT; tell INT' INT
trap ': > "$own.look"; rm -f "$own.look"; wish=$(wished "$run") && tell "$wish"' URG
"#;
    for module in &profile.modules {
        out += &format!("module load {} || exit 3\n", quoted([module])?);
    }
    for line in &profile.setup {
        out += &format!("{line}\n");
    }
    out += "export RAYON_NUM_THREADS=\"${SLURM_CPUS_PER_TASK:-1}\"\ncase $SLURM_ARRAY_TASK_ID in\n";
    let mut runs = 0..;
    for (n, job) in jobs.iter().enumerate() {
        let numbers: Vec<String> = runs.by_ref().take(job.len()).map(|n: usize| n.to_string()).collect();
        out += &format!("{n}) runs='{}' ;;\n", numbers.join(" "));
    }
    out += "*) echo \"no task $SLURM_ARRAY_TASK_ID\" >&2; exit 2 ;;\nesac\nbegin() {\n    case $1 in\n";
    let step: &[&str] = if several { &["srun", "--mpi=pmix", "--kill-on-bad-exit=1"] } else { &[] };
    for (n, launch) in jobs.iter().flatten().enumerate() {
        let before = step.iter().map(OsStr::new).chain(profile.container.iter().map(OsStr::new));
        let words = before.chain([program.as_os_str()]);
        out += &format!("    {n}) set -- {} ;;\n", quoted(words.chain(launch.args.iter().map(|a| a.as_os_str())))?);
    }
    // A signal ends `wait`, not the program: wait again until it is gone. What was told to end for the job's sake has not ended for
    // good. At the limit of time the task goes back into the queue, where it begins with what has not ended.
    out += r#"    esac
    "$@" &
    child=$!
}
for run in $runs; do
    [ -z "$again$over" ] || break
    ended "$run" && continue
    if wished "$run" >/dev/null; then
        echo "$run -" >> "$own.ended"
        continue
    fi
    begin "$run"
    [ -z "$again$over" ] || tell "${over:-TERM}"
    wish=$(wished "$run") && tell "$wish"
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    # It may have ended while a signal was heard, whose number the code then is.
    if [ "$code" -gt 128 ]; then
        wait "$child" 2>/dev/null
        last=$?
        [ "$last" -eq 127 ] || code=$last
    fi
    child= told=
    [ "$code" -eq 0 ] || worst=$code
    if [ "$code" -eq 0 ] || [ -z "$again$over" ]; then
        echo "$run $code" >> "$own.ended"
    fi
done
for run in $runs; do
    if [ -n "$again" ] && [ -z "$over" ] && ! ended "$run"; then
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
        break
    fi
done
exit "$worst"
"#;
    Ok(out)
}
