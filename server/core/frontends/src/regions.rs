//! Named regions of system shared memory, as Open Inference's extension has them. Off unless configured.
//!
//! A client names a file below /dev/shm, and tensors by ranges of it. The file stays the client's, who may
//! shorten it at any time: so it is never mapped, but read and written by the kernel ([`Window`]). What is read
//! is a copy, which changes no more.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kingpole_memory::Window;
use kingpole_values::{Code, Error, InferRequest, InferResponse, Result, Stage};
use kingpole_wire::{RegionRange, Regions};
use rustix::fs::{FileType, Mode, OFlags};

use crate::connection::Shared;

const DIRECTORY: &str = "/dev/shm";
/// Regions that may be registered at once: each holds a file descriptor.
const MAX_REGIONS: usize = 1024;
/// Bytes of all regions together. Nothing of them is held in memory: this only keeps sums sane.
const MAX_BYTES: u64 = 1 << 42;
/// The longest name of a region; its client chose it, and every status says it.
const MAX_NAME_BYTES: usize = 256;

/// The regions that clients have registered, the same for all connections.
#[derive(Debug)]
pub struct SystemRegions {
    /// What the names of files must begin with; empty: any name.
    prefixes: Vec<String>,
    registered: Mutex<BTreeMap<String, Arc<Region>>>,
}

/// A registered region. Requests that use it keep it when its name is taken away.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) key: String,
    window: Window,
}

impl Region {
    pub(crate) fn offset(&self) -> u64 {
        self.window.offset()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.window.bytes()
    }
}

impl SystemRegions {
    /// No regions yet, of files whose names begin with one of `prefixes`, or of any if there are none.
    pub fn new(prefixes: Vec<String>) -> Arc<Self> {
        Arc::new(Self { prefixes, registered: Mutex::default() })
    }

    pub(crate) fn register(&self, name: &str, key: &str, offset: u64, bytes: u64) -> Result<()> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!(
                "a region's name has 1 to {MAX_NAME_BYTES} bytes, this one has {}",
                name.len()
            )));
        }
        // Held while the file is opened: two clients may want the same name.
        let mut registered = self.lock();
        if registered.contains_key(name) {
            return Err(Error::new(
                Code::AlreadyExists,
                format!("shared memory region '{name}' already in manager; unregister it first"),
            ));
        }
        if registered.len() >= MAX_REGIONS {
            return Err(Error::exhausted(format!(
                "{MAX_REGIONS} shared memory regions are registered already"
            )));
        }
        let window = Window::new(self.open(key)?, offset, bytes)?;
        let total: u64 = registered.values().map(|region| region.bytes()).sum();
        if total.saturating_add(bytes) > MAX_BYTES {
            return Err(Error::exhausted(format!(
                "shared memory regions of more than {MAX_BYTES} bytes together"
            )));
        }
        registered.insert(name.to_owned(), Arc::new(Region { key: key.to_owned(), window }));
        Ok(())
    }

    /// Take a region's name away, or those of all. One that is unknown is as good as unregistered.
    pub(crate) fn unregister(&self, name: Option<&str>) {
        let mut registered = self.lock();
        match name {
            Some(name) => {
                registered.remove(name);
            }
            None => registered.clear(),
        }
    }

    /// One region or all, by name.
    pub(crate) fn status(&self, name: Option<&str>) -> Result<Vec<(String, Arc<Region>)>> {
        if let Some(name) = name {
            return Ok(vec![(name.to_owned(), self.find(name)?)]);
        }
        Ok(self.lock().iter().map(|(name, region)| (name.clone(), Arc::clone(region))).collect())
    }

    fn find(&self, name: &str) -> Result<Arc<Region>> {
        self.lock().get(name).cloned().ok_or_else(|| unknown(name))
    }

    /// Open one file right below the directory, and nothing else whatever the key says.
    fn open(&self, key: &str) -> Result<OwnedFd> {
        let shown: String = key.chars().take(64).collect::<String>().escape_debug().to_string();
        let name = key.strip_prefix('/').unwrap_or(key);
        if name.is_empty() || name.len() > 255 || matches!(name, "." | "..") || name.contains(['/', '\0']) {
            return Err(Error::invalid(format!(
                "the shared memory key '{shown}' is not one name, such as '/my_tensors'"
            )));
        }
        // Semaphores lie in the same directory; written to, they would break whoever waits for them.
        let allowed = self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| name.starts_with(prefix));
        if !allowed || name.starts_with("sem.") {
            return Err(Error::new(
                Code::PermissionDenied,
                format!("the shared memory key '{shown}' is not one that this server lets clients name"),
            ));
        }
        let refuse = |error| Error::invalid(format!("the shared memory '{shown}' cannot be opened: {error}"));
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::open(DIRECTORY, flags | OFlags::DIRECTORY | OFlags::PATH, Mode::empty())
            .map_err(refuse)?;
        // Not blocking: a pipe would wait for its other end.
        let flags = flags | OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(&directory, name, flags, Mode::empty()).map_err(refuse)?;
        let status = rustix::fs::fstat(&file).map_err(refuse)?;
        // A second name may be somebody's who could not open the file himself.
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || status.st_nlink != 1 {
            return Err(Error::invalid(format!("'{shown}' is not shared memory, but something else")));
        }
        Ok(file)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::new(
        Code::NotFound,
        format!("Unable to find system shared memory region: '{}'", name.escape_debug()),
    )
}

/// What is answered to everything about regions where they are off.
pub(crate) fn of(shared: &Shared) -> Result<&SystemRegions> {
    shared.configuration.client_shared_memory.as_deref().ok_or_else(|| {
        Error::new(
            Code::Unimplemented,
            "shared memory regions are not offered by this server; --client-shared-memory turns them on",
        )
    })
}

/// What is answered to a question about a region of a GPU's memory: there is none.
pub(crate) fn unknown_cuda(name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::new(Code::NotFound, format!("Unable to find cuda shared memory region: '{}'", name.escape_debug()))
}

/// What is answered to the registration of memory of a GPU.
pub(crate) fn no_cuda() -> Error {
    Error::new(Code::Unimplemented, "CUDA shared memory is not offered: this build has no CUDA")
}

/// Where the outputs of a request go.
pub(crate) struct RegionOutputs(Vec<(usize, Arc<Region>, RegionRange)>);

/// Copy a request's inputs out of their regions, and find those that its outputs go to.
///
/// Inputs count against the limits of a body, as if they had come in one.
pub(crate) fn fill(
    request: &mut InferRequest,
    regions: Regions,
    shared: &Shared,
) -> Result<Option<Box<RegionOutputs>>> {
    if regions.is_empty() {
        return Ok(None);
    }
    let registered = of(shared)?;
    // Before anything is copied for it.
    shared.engine.model(&request.model, request.version.as_deref())?;
    let mut total = 0;
    for (index, range) in regions.inputs {
        let tensor = &mut request.inputs[index];
        let of_tensor =
            |error: Error| Error::new(error.code, format!("input '{}': {}", tensor.name, error.message));
        let region = registered.find(&range.region).map_err(of_tensor)?;
        let nbytes = within_a_body(&mut total, range.nbytes, shared)?;
        let mut charge = shared.memory.open();
        charge.cover(nbytes)?;
        let copy = region.window.read(range.offset, nbytes).map_err(of_tensor)?;
        tensor.data = charge.hold(copy);
    }
    let outputs = regions.outputs.into_iter().map(|(index, range)| {
        crate::classification::refuse_in_region(&request.outputs[index])?;
        let name = &request.outputs[index].name;
        let region = registered.find(&range.region);
        let region =
            region.and_then(|region| region.window.check(range.offset, range.nbytes).map(|()| region));
        let region =
            region.map_err(|error| Error::new(error.code, format!("output '{name}': {}", error.message)))?;
        Ok((index, region, range))
    });
    Ok(Some(Box::new(RegionOutputs(outputs.collect::<Result<_>>()?))))
}

/// Count an input that is not in the message; all together they may have what a message may.
pub(crate) fn within_a_body(total: &mut usize, nbytes: u64, shared: &Shared) -> Result<usize> {
    let limit = shared.configuration.max_body_bytes;
    let nbytes = usize::try_from(nbytes).unwrap_or(usize::MAX);
    *total = total.saturating_add(nbytes);
    if *total > limit {
        return Err(Error::exhausted(format!(
            "the inputs in shared memory have more than the {limit} bytes that a request may have"
        )));
    }
    Ok(nbytes)
}

impl RegionOutputs {
    /// Move the outputs that were wanted in regions there; gives their positions and where they are.
    pub(crate) fn write(&self, response: &mut InferResponse) -> Result<Vec<(usize, RegionRange)>> {
        // One of several responses would overwrite the one before.
        if response.stage != Stage::Only {
            return Ok(Vec::new());
        }
        let written = self.0.iter().map(|(index, region, range)| {
            let Some(output) = response.outputs.get_mut(*index) else {
                return Err(Error::internal(format!("the response has no output {index}")));
            };
            let nbytes = output.data.len() as u64;
            if nbytes > range.nbytes {
                return Err(Error::invalid(format!(
                    "output '{}' has {nbytes} bytes, more than the {} of its place in shared memory",
                    output.name, range.nbytes
                )));
            }
            region.window.write(range.offset, &output.data).map_err(|error| {
                Error::new(error.code, format!("output '{}': {}", output.name, error.message))
            })?;
            output.data = Bytes::new();
            Ok((*index, RegionRange { nbytes, ..range.clone() }))
        });
        written.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_name_and_nothing_else() {
        let regions = SystemRegions::new(Vec::new());
        let long = "x".repeat(256);
        for key in ["", "/", "..", "/..", "a/b", "//a", "/../etc/passwd", "/a/../b", "a\0b", ".", &long] {
            let error = regions.register("r", key, 0, 1).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{key:?}");
            assert!(error.message.contains("is not one name"), "{key:?}: {error}");
        }
        let error = regions.register("r", "/kingpole-test-nobody-made-this", 0, 1).unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains("cannot be opened"), "{error}");
    }

    #[test]
    fn only_the_names_that_are_allowed_are_opened() {
        let regions = SystemRegions::new(vec!["mine_".to_owned()]);
        for (key, code) in [
            ("/theirs", Code::PermissionDenied),
            ("/sem.mine_", Code::PermissionDenied),
            ("/mine_absent", Code::InvalidArgument),
        ] {
            assert_eq!(regions.register("r", key, 0, 1).unwrap_err().code, code, "{key}");
        }
    }
}
