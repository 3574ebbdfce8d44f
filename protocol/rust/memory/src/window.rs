//! A range of a file that others may truncate: read and written by the kernel, never mapped.

use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use kingpole_values::{Code, Error, Result};
use rustix::io::Errno;

use crate::mapping::{aligned, finish};

/// A range of a file.
///
/// A mapping of it could end this process: whoever may write the file may also shorten it, and touching a
/// page beyond the end is SIGBUS, however lately the size was looked at. `pread` and `pwrite` say instead that
/// there was less.
#[derive(Debug)]
pub struct Window {
    file: OwnedFd,
    offset: u64,
    bytes: u64,
}

impl Window {
    /// The range of `bytes` that begins at `offset`, which must be inside the file now.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is not.
    pub fn new(file: OwnedFd, offset: u64, bytes: u64) -> Result<Self> {
        let window = Self { file, offset, bytes };
        let size = window.file_bytes()?;
        match offset.checked_add(bytes) {
            Some(end) if bytes > 0 && end <= size => Ok(window),
            _ => Err(Error::invalid(format!(
                "{bytes} bytes at {offset} are not inside of the shared memory, which has {size} bytes"
            ))),
        }
    }

    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its size when it was made.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn file_bytes(&self) -> Result<u64> {
        let status = rustix::fs::fstat(&self.file)
            .map_err(|error| Error::invalid(format!("the shared memory cannot be looked at: {error}")))?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    /// Where a part of it begins in the file; checked against the window and the file as it is now.
    fn locate(&self, offset: u64, nbytes: u64) -> Result<u64> {
        let end = offset.checked_add(nbytes).filter(|&end| end <= self.bytes).ok_or_else(|| {
            Error::invalid(format!(
                "{nbytes} bytes at {offset} pass the end of the region, which has {}",
                self.bytes
            ))
        })?;
        // The window was inside the file, so that this cannot overflow.
        if self.offset + end > self.file_bytes()? {
            return Err(shrunk());
        }
        Ok(self.offset + offset)
    }

    /// Whether a part could be read or written now.
    ///
    /// # Errors
    /// As those of `read`.
    pub fn check(&self, offset: u64, nbytes: u64) -> Result<()> {
        self.locate(offset, nbytes).map(|_| ())
    }

    /// A copy of a part, aligned for frameworks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the part passes the end, or the file was shortened meanwhile.
    pub fn read(&self, offset: u64, nbytes: usize) -> Result<Bytes> {
        let mut at = self.locate(offset, nbytes as u64)?;
        let mut memory = aligned(nbytes);
        while memory.len() < nbytes {
            let have = memory.len();
            let room = &mut memory.spare_capacity_mut()[..nbytes - have];
            match rustix::io::pread(&self.file, room, at) {
                Ok((read, _)) if !read.is_empty() => {
                    let read = read.len();
                    at += read as u64;
                    // SAFETY: the kernel has just written so many bytes there.
                    unsafe { memory.set_len(have + read) };
                }
                Ok(_) => return Err(shrunk()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(finish(memory))
    }

    /// Write to a part.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it passes the end, or the file was shortened; `RESOURCE_EXHAUSTED` if the file
    /// system is full. A file shortened between our look and our writing grows again, to its former size at most.
    pub fn write(&self, offset: u64, mut data: &[u8]) -> Result<()> {
        let mut at = self.locate(offset, data.len() as u64)?;
        while !data.is_empty() {
            match rustix::io::pwrite(&self.file, data, at) {
                Ok(written) => {
                    at += written as u64;
                    data = &data[written..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Window {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn shrunk() -> Error {
    Error::invalid("the shared memory is shorter than when the region was registered")
}

fn failed(error: Errno) -> Error {
    let code = if error == Errno::NOSPC { Code::ResourceExhausted } else { Code::InvalidArgument };
    Error::new(code, format!("the shared memory cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn file(bytes: u64) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, bytes).unwrap();
        fd
    }

    #[test]
    fn a_window_lies_within_its_file() {
        for (offset, bytes) in [(0, 4097), (4096, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
            assert!(Window::new(file(4096), offset, bytes).is_err(), "{bytes} at {offset}");
        }
        let window = Window::new(file(4096), 96, 4000).unwrap();
        for (offset, bytes) in [(0, 4001), (4000, 1), (u64::MAX, 2)] {
            assert!(window.read(offset, bytes).is_err(), "{bytes} at {offset}");
        }
        assert!(window.write(3999, b"ab").is_err());
        assert!(window.read(4000, 0).unwrap().is_empty());
    }

    #[test]
    fn what_was_written_is_read_at_the_windows_offset() {
        let whole = file(4096);
        let window = Window::new(whole.try_clone().unwrap(), 1000, 96).unwrap();
        window.write(4, b"abc").unwrap();
        assert_eq!(&window.read(4, 3).unwrap()[..], b"abc");
        assert_eq!(&Window::new(whole, 0, 4096).unwrap().read(1004, 3).unwrap()[..], b"abc");
    }

    #[test]
    fn a_file_that_is_shortened_is_an_error_and_never_a_signal() {
        let whole = file(1 << 20);
        let window = Window::new(whole.try_clone().unwrap(), 0, 1 << 20).unwrap();
        rustix::fs::ftruncate(&whole, 100).unwrap();
        assert!(window.read(0, 1 << 20).unwrap_err().message.contains("shorter"));
        assert!(window.write(1000, b"abc").unwrap_err().message.contains("shorter"));
        assert_eq!(window.read(0, 100).unwrap().len(), 100);
    }

    #[test]
    fn a_file_that_is_shortened_all_the_time_never_ends_the_process() {
        let whole = file(1 << 20);
        let window = Window::new(whole.try_clone().unwrap(), 0, 1 << 20).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::ftruncate(&whole, 0).unwrap();
                    rustix::fs::ftruncate(&whole, 1 << 20).unwrap();
                }
            });
            for _ in 0..500 {
                // Either is right; what counts is that this test goes on.
                let (read, written) = (window.read(0, 1 << 20), window.write(0, &vec![7; 65536]));
                for error in [read.err(), written.err()].into_iter().flatten() {
                    assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
