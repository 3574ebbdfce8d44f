//! A socket that moves large messages in few system calls. Knows no protocol.
//!
//! `h2` reads at most 8 KiB at a time and writes frame by frame, mostly 16 KiB. A copy through memory that stays in
//! the processor's cache costs less than the system calls it saves. What is small goes straight through.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use crate::socket::Socket;

const BLOCK_BYTES: usize = 256 << 10;

/// The blocks of a reactor. Whoever finds none left does without, so that this also bounds what staged
/// bytes, which nobody is charged for, can add up to.
const BLOCKS: usize = 16;

/// A reader with less room than this is given what was read ahead instead.
const SMALL_READ_BYTES: usize = 32 << 10;

/// A read that fills so much room says that more is waiting.
const FULL_READ_BYTES: usize = 4 << 10;

/// A longer write is probably not the last of its message.
const LARGE_WRITE_BYTES: usize = 8 << 10;

/// What the connections of a reactor lend each other.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    free: RefCell<Vec<Box<[u8]>>>,
    lent: Cell<usize>,
}

impl Blocks {
    fn lend(self: &Rc<Self>) -> Option<Block> {
        if self.lent.get() == BLOCKS {
            return None;
        }
        let bytes = self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; BLOCK_BYTES].into());
        self.lent.set(self.lent.get() + 1);
        Some(Block { bytes, from: 0, to: 0, owner: Rc::clone(self) })
    }
}

/// A block on loan, of which `from..to` is to be passed on.
struct Block {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
    owner: Rc<Blocks>,
}

impl Block {
    fn staged(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    fn add(&mut self, slices: &[io::IoSlice<'_>]) {
        for slice in slices {
            self.bytes[self.to..self.to + slice.len()].copy_from_slice(slice);
            self.to += slice.len();
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.owner.lent.set(self.owner.lent.get() - 1);
        self.owner.free.borrow_mut().push(std::mem::take(&mut self.bytes));
    }
}

/// A socket with a block in front of it in each direction, while there is something large to move.
pub(crate) struct Staged {
    socket: Socket,
    blocks: Rc<Blocks>,
    read: Option<Block>,
    written: Option<Block>,
    /// The last read was full.
    reads_large: bool,
    /// Written since the last flush, and probably not the end of what is being written.
    more_expected: bool,
}

impl Staged {
    pub(crate) fn new(socket: Socket, blocks: Rc<Blocks>) -> Self {
        Self { socket, blocks, read: None, written: None, reads_large: false, more_expected: false }
    }

    fn poll_write_staged(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(block) = &mut self.written {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, block.staged()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => block.from += written,
            }
            if block.staged().is_empty() {
                self.written = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Read into a block, and give what has room; `None` if there is no block.
    fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Option<Poll<io::Result<()>>> {
        let mut block = self.blocks.lend()?;
        let mut read = ReadBuf::new(&mut block.bytes);
        match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => block.to = read.filled().len(),
            other => return Some(other),
        }
        self.reads_large = block.to >= buffer.remaining();
        give(&mut block, buffer);
        self.read = Some(block).filter(|block| !block.staged().is_empty());
        Some(Poll::Ready(Ok(())))
    }
}

fn give(block: &mut Block, buffer: &mut ReadBuf<'_>) {
    let given = block.staged().len().min(buffer.remaining());
    buffer.put_slice(&block.staged()[..given]);
    block.from += given;
}

impl AsyncRead for Staged {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(block) = &mut this.read {
            // Counted like a read of the socket, so that a fast client gives way to others as often.
            ready!(coop::poll_proceed(cx)).made_progress();
            give(block, buffer);
            if block.staged().is_empty() {
                this.read = None;
            }
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining();
        if this.reads_large
            && room < SMALL_READ_BYTES
            && let Some(read) = this.poll_read_ahead(cx, buffer)
        {
            return read;
        }
        ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        this.reads_large = buffer.remaining() == 0 && room >= FULL_READ_BYTES;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Staged {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        this.more_expected = length >= LARGE_WRITE_BYTES;
        if this.written.as_ref().is_some_and(|block| BLOCK_BYTES - block.to < length) {
            ready!(this.poll_write_staged(cx))?;
        }
        if this.written.is_none() && this.more_expected && length <= BLOCK_BYTES / 2 {
            this.written = this.blocks.lend();
        }
        match &mut this.written {
            Some(block) => {
                block.add(slices);
                Poll::Ready(Ok(length))
            }
            None => Pin::new(&mut this.socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Flushing after a large write waits for what comes next: the rest of the message, or a second flush.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.written.is_some() && std::mem::take(&mut this.more_expected) {
            // Whoever flushes is polled again, and then flushes again, if nothing more is written.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_write_staged(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_staged(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::listen::AcceptedStream;

    fn pair() -> (Staged, UnixStream, Rc<Blocks>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = Socket::open(AcceptedStream::Unix(ours), Duration::from_mins(1)).unwrap();
        let blocks = Rc::new(Blocks::default());
        (Staged::new(socket, Rc::clone(&blocks)), theirs, blocks)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    /// What has arrived so far.
    fn arrived(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 4 * BLOCK_BYTES];
        match stream.read(&mut bytes) {
            Ok(read) => bytes.truncate(read),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                bytes.clear();
            }
        }
        bytes
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_large_write_waits_for_the_end_of_its_message_and_goes_with_it() {
        let (mut staged, mut peer, blocks) = pair();
        let large = pattern(16 << 10);
        for _ in 0..2 {
            assert_eq!(staged.write(&large).await.unwrap(), large.len());
            staged.flush().await.unwrap();
            assert_eq!(arrived(&mut peer), b"");
        }
        staged.write_all(b"end").await.unwrap();
        staged.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), [&large[..], &large, b"end"].concat());
        assert_eq!(blocks.lent.get(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_second_flush_sends_a_large_write_that_was_the_last() {
        let (mut staged, mut peer, blocks) = pair();
        let large = pattern(LARGE_WRITE_BYTES);
        staged.write_all(&large).await.unwrap();
        staged.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), b"");
        staged.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), large);
        assert_eq!(blocks.lent.get(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn ending_sends_what_is_staged() {
        let (mut staged, mut peer, _) = pair();
        let large = pattern(LARGE_WRITE_BYTES);
        staged.write_all(&large).await.unwrap();
        staged.shutdown().await.unwrap();
        assert_eq!(arrived(&mut peer), large);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_small_write_needs_no_block_and_no_second_flush() {
        let (mut staged, mut peer, blocks) = pair();
        staged.write_all(b"small").await.unwrap();
        assert_eq!(blocks.free.borrow().len() + blocks.lent.get(), 0);
        staged.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), b"small");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn writes_of_every_size_keep_their_order_when_the_client_reads_slowly() {
        let (mut staged, peer, blocks) = pair();
        let sizes = [1, 9, 16 << 10, 200 << 10, 3, LARGE_WRITE_BYTES, 100 << 10, 120 << 10, 127 << 10, 70];
        let sent = pattern(sizes.iter().sum());
        let reader = std::thread::spawn(move || {
            peer.set_nonblocking(false).unwrap();
            let (mut peer, mut all, mut piece) = (peer, Vec::new(), [0; 5000]);
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => return all,
                    read => all.extend_from_slice(&piece[..read]),
                }
            }
        });
        let mut rest = &sent[..];
        for size in sizes {
            let (now, later) = rest.split_at(size);
            staged.write_all(now).await.unwrap();
            staged.flush().await.unwrap();
            rest = later;
        }
        staged.shutdown().await.unwrap();
        assert!(reader.join().unwrap() == sent);
        assert_eq!(blocks.lent.get(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn reads_in_pieces_give_what_was_sent_and_then_hold_no_block() {
        for spare_blocks in [BLOCKS, 0] {
            let (mut staged, peer, blocks) = pair();
            let taken: Vec<_> = (spare_blocks..BLOCKS).map(|_| blocks.lend().unwrap()).collect();
            let sent = pattern(1 << 20);
            let expected = sent.clone();
            let writer = std::thread::spawn(move || {
                peer.set_nonblocking(false).unwrap();
                let mut peer = peer;
                peer.write_all(&sent).unwrap();
            });
            let (mut all, mut piece, mut was_ahead) = (Vec::new(), vec![0; 8 << 10], false);
            loop {
                let read = staged.read(&mut piece).await.unwrap();
                if read == 0 {
                    break;
                }
                all.extend_from_slice(&piece[..read]);
                was_ahead |= staged.read.is_some();
            }
            writer.join().unwrap();
            assert!(all == expected);
            assert_eq!(was_ahead, spare_blocks > 0);
            assert_eq!(blocks.lent.get(), taken.len());
        }
    }
}
