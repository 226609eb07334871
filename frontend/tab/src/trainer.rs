//! The worker that trains. What it would write to a disk it tells the desk, and remembers for itself.

use super::messages::{Kept, Training, pack, unpack};
use super::scope;
use moslim_engine::keep::Job;
use moslim_engine::keep::files::{Append, Files, Memory};
use moslim_engine::progress::Stop;
use moslim_engine::run::train;
use std::io;
use std::sync::Arc;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::MessageEvent;

fn tell(kept: &Kept, bytes: &[&[u8]]) -> io::Result<()> {
    scope().post_message(&pack(kept, bytes)).map_err(|e| io::Error::other(super::keep::text(&e)))
}

/// Files of which the desk is told.
struct Told(Memory);

impl Files for Told {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        tell(&Kept::Write { path: path.into() }, &[bytes])?;
        self.0.write(path, bytes)
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        // Whole lines alone were handed over; the desk has cut off what was torn.
        Ok(Box::new(Telling { path: path.into() }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        tell(&Kept::Remove { path: path.into() }, &[])?;
        self.0.remove(path)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn describe(&self, path: &str) -> String {
        format!("{path} (in this browser)")
    }
}

struct Telling {
    path: String,
}

impl Append for Telling {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        tell(&Kept::Append { path: self.path.clone() }, &[bytes])
    }
}

/// Waits for a run, trains it, and says when it has ended.
pub fn listen() {
    let heard = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| {
        let Ok((training, bytes)) = unpack::<Training>(&event) else { return };
        let memory = Memory::default();
        for (path, bytes) in training.files.iter().zip(bytes) {
            let _ = memory.write(path, &bytes);
        }
        let job = Job::new(&training.run, training.config, Arc::new(Told(memory)));
        // Its end is in its journal.
        let _ = train(&job, &Stop::default(), &mut |_| {});
        let _ = tell(&Kept::Ended, &[]);
    });
    scope().set_onmessage(Some(heard.as_ref().unchecked_ref()));
    heard.forget();
    let _ = tell(&Kept::Ready, &[]);
}
