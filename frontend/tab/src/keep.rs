//! Where the lab's files are kept in a browser: two files in the origin's private file system, which one worker at a time has open.

use js_sys::Uint8Array;
use moslim_engine::keep::log::{InMemory, Log, Medium};
use send_wrapper::SendWrapper;
use std::io::{self, ErrorKind};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    DomException, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetFileOptions, FileSystemReadWriteOptions,
    FileSystemSyncAccessHandle,
};

/// Names of the two files.
const FILES: [&str; 2] = ["moslim-lab-a.log", "moslim-lab-b.log"];
/// What is kept in memory at most where there is no file system.
const ROOM: usize = 256 << 20;

/// A file that this worker alone has open.
pub struct Private(SendWrapper<FileSystemSyncAccessHandle>);

fn failed(what: &str, error: &JsValue) -> io::Error {
    let full = error.dyn_ref::<DomException>().is_some_and(|e| e.name() == "QuotaExceededError");
    let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Other };
    io::Error::new(kind, format!("{what}: {}", text(error)))
}

/// What a JavaScript error says.
pub fn text(error: &JsValue) -> String {
    let own = error.dyn_ref::<DomException>().map(|e| format!("{}: {}", e.name(), e.message()));
    own.or_else(|| error.dyn_ref::<js_sys::Error>().map(|e| e.message().into())).unwrap_or_else(|| format!("{error:?}"))
}

fn at(place: u64) -> FileSystemReadWriteOptions {
    let options = FileSystemReadWriteOptions::new();
    options.set_at(place as f64);
    options
}

impl Medium for Private {
    fn len(&self) -> io::Result<u64> {
        self.0.get_size().map(|n| n as u64).map_err(|e| failed("the size of the browser's storage", &e))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len()? as usize];
        let read =
            self.0.read_with_u8_array_and_options(&mut bytes, &at(0)).map_err(|e| failed("reading the browser's storage", &e))?;
        bytes.truncate(read as usize);
        Ok(bytes)
    }

    fn write(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let own = Uint8Array::from(bytes);
        let written = self.0.write_with_buffer_source_and_options(&own, &at(place));
        match written.map_err(|e| failed("writing to the browser's storage", &e))? as usize {
            n if n == bytes.len() => Ok(()),
            _ => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate_with_f64(len as f64).map_err(|e| failed("cutting the browser's storage", &e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|e| failed("writing to the browser's storage", &e))
    }
}

/// The place where runs are kept.
pub enum Place {
    Private(Log<Private>),
    /// Until the tab is closed, and why.
    Memory(Log<InMemory>, String),
}

/// Opens the lab's files.
///
/// # Errors
/// When another tab has them open, or they are damaged; the message is for people.
pub async fn open() -> Result<Place, String> {
    let folder = match JsFuture::from(super::scope().navigator().storage().get_directory()).await {
        Ok(folder) => folder.unchecked_into::<FileSystemDirectoryHandle>(),
        Err(error) => return in_memory(&error),
    };
    let options = FileSystemGetFileOptions::new();
    options.set_create(true);
    let mut media = Vec::new();
    for name in FILES {
        let file = match JsFuture::from(folder.get_file_handle_with_options(name, &options)).await {
            Ok(file) => file.unchecked_into::<FileSystemFileHandle>(),
            Err(error) => return in_memory(&error),
        };
        match JsFuture::from(file.create_sync_access_handle()).await {
            Ok(handle) => media.push(Private(SendWrapper::new(handle.unchecked_into()))),
            Err(error) => {
                let taken = error.dyn_ref::<DomException>().is_some_and(|e| e.name() == "NoModificationAllowedError");
                if taken {
                    return Err(
                        "The lab is open in another tab of this browser. Go on there, or close that tab and reload this one."
                            .into(),
                    );
                }
                return in_memory(&error);
            }
        }
    }
    let media: [Private; 2] = media.try_into().map_err(|_| "the browser's storage did not open".to_string())?;
    Log::open(media).map(Place::Private).map_err(|e| format!("The browser's storage cannot be read: {e}"))
}

fn in_memory(why: &JsValue) -> Result<Place, String> {
    let note = format!("This browser keeps no files for this page ({}). Runs are lost when the tab is closed.", text(why));
    let log = Log::open([InMemory::new(ROOM), InMemory::new(ROOM)]).map_err(|e| e.to_string())?;
    Ok(Place::Memory(log, note))
}
