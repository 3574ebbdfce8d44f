//! Frames on a connection of their own: pipelined, answered in any order.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use kingpole_values::{Error, Parameters, Result};
use kingpole_wire::Scatter;
use kingpole_wire::frame::{self, FrameReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::{Arenas, Conversation, Outgoing, encode_error, encode_final_error, grant};
use crate::budget::Charge;
use crate::connection::Shared;
use crate::outlet::{Outflow, Outlet, outlet};
use crate::socket::{Socket, linger};

/// Answers known at once that may wait to be written before no more is read.
const MAX_UNWRITTEN: usize = 64;
/// Smaller pieces are written together.
const TOGETHER_BYTES: usize = 16 * 1024;
/// What is read at once while nobody knows how long the frame is.
const READ_BYTES: usize = 8 * 1024;

/// Exchange of an error that belongs to no request.
const NO_EXCHANGE: u64 = 0;

/// How the client's side of a stream ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The client has no more to say.
    Well,
    /// What it said makes no sense; more of it may be on its way.
    Refused,
}

/// Serve one connection until the client has ended it, or the server drains, and all is answered.
pub(crate) async fn serve(socket: Socket, shared: Rc<Shared>) {
    let arenas = socket.descriptors().map(|descriptors| Arenas::new(Rc::clone(&shared), descriptors));
    let (mut input, output) = tokio::io::split(socket);
    let (outgoing, answers) = outlet();
    let stream = Stream {
        conversation: RefCell::new(Conversation::new(Rc::clone(&shared), outgoing.clone(), arenas)),
        shared: Rc::clone(&shared),
        outgoing,
        unwritten: Cell::new(0),
        written: Notify::new(),
    };
    stream.say(grant());
    let end = {
        let reading = stream.answer_all(&mut input);
        let writing = stream.write(output, answers);
        tokio::pin!(reading, writing);
        tokio::select! {
            // The client is gone when it cannot be written to; dropping the channel cancels the rest.
            _ = &mut writing => return,
            end = &mut reading => {
                if writing.await.is_err() {
                    return;
                }
                end
            }
        }
    };
    if end == End::Refused {
        linger(&mut input, shared).await;
    }
}

/// One connection, as its reader and its writer see it.
struct Stream {
    shared: Rc<Shared>,
    conversation: RefCell<Conversation>,
    outgoing: Outlet<Outgoing>,
    /// Answers known at once that were not taken for writing.
    unwritten: Cell<usize>,
    /// Tells that something was taken for writing.
    written: Notify,
}

impl Stream {
    fn say(&self, frame: Scatter) {
        self.unwritten.set(self.unwritten.get() + 1);
        // A writer that is gone ends the connection by itself.
        self.outgoing.put(Outgoing::AtOnce(frame));
    }

    fn refuse(&self, error: &Error) -> End {
        // The place where the next frame begins is lost.
        self.shared.engine.count_refused(error.code);
        self.say(encode_final_error(error, NO_EXCHANGE));
        End::Refused
    }

    /// Read to the end, and wait until everything that was asked is answered.
    async fn answer_all(&self, input: &mut ReadHalf<Socket>) -> End {
        let end = tokio::select! {
            end = self.read(input) => end,
            () = Rc::clone(&self.shared).drained() => End::Well,
        };
        while self.conversation.borrow().in_flight() > 0 {
            self.written.notified().await;
        }
        self.outgoing.put(Outgoing::End);
        end
    }

    async fn read(&self, input: &mut ReadHalf<Socket>) -> End {
        let mut reader = FrameReader::new(self.shared.configuration.max_body_bytes);
        let mut charge = self.shared.memory.open();
        loop {
            loop {
                // A client that does not read its answers is not read from.
                while self.unwritten.get() >= MAX_UNWRITTEN {
                    self.written.notified().await;
                }
                match reader.next_frame_bytes() {
                    Ok(Some(frame)) => {
                        let charge = std::mem::replace(&mut charge, self.shared.memory.open());
                        if let Err(error) = self.receive(frame, charge) {
                            return self.refuse(&error);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return self.refuse(&error),
                }
            }
            // What is there of a frame that is not whole.
            if let Err(error) = charge.cover(reader.buffer().len()) {
                let Some(exchange) = reader.skip_frame() else { return self.refuse(&error) };
                self.shared.engine.count_refused(error.code);
                self.say(encode_error(&error, None, exchange));
                charge = self.shared.memory.open();
            }
            make_room(reader.buffer());
            match input.read_buf(reader.buffer()).await {
                Ok(0) if reader.is_at_boundary() => return End::Well,
                Ok(0) => return self.refuse(&Error::invalid("the frame is cut off")),
                Ok(_) => {}
                Err(_) => return End::Well,
            }
        }
    }

    /// Take a whole frame.
    fn receive(&self, frame: Bytes, mut charge: Charge) -> Result<()> {
        let refused = charge.cover(frame.len()).err();
        if let Some((error, exchange)) = refused.zip(frame::peek_exchange(&frame)) {
            self.shared.engine.count_refused(error.code);
            self.say(encode_error(&error, None, exchange));
            return Ok(());
        }
        let frame = frame::decode(charge.hold(frame))?;
        let answer = self.conversation.borrow_mut().receive(frame, None, &Parameters::new());
        if let Some(answer) = answer {
            self.say(answer);
        }
        Ok(())
    }

    async fn write(&self, mut output: WriteHalf<Socket>, mut answers: Outflow<Outgoing>) -> io::Result<()> {
        let mut together = BytesMut::new();
        while let Some(first) = answers.next().await {
            let mut next = Some(first);
            while let Some(outgoing) = next {
                let frame = match outgoing {
                    Outgoing::AtOnce(frame) => {
                        self.unwritten.set(self.unwritten.get() - 1);
                        Some(frame)
                    }
                    Outgoing::Answer(answer) => self.conversation.borrow_mut().finish(answer),
                    Outgoing::End => {
                        output.write_all_buf(&mut together).await?;
                        return output.shutdown().await;
                    }
                };
                for piece in frame.into_iter().flat_map(Scatter::into_chunks) {
                    if piece.len() >= TOGETHER_BYTES {
                        output.write_all_buf(&mut together).await?;
                        output.write_all(&piece).await?;
                    } else {
                        together.extend_from_slice(&piece);
                    }
                }
                self.written.notify_one();
                if together.len() >= TOGETHER_BYTES {
                    output.write_all_buf(&mut together).await?;
                }
                next = answers.try_next();
            }
            output.write_all_buf(&mut together).await?;
            output.flush().await?;
        }
        Ok(())
    }
}

/// Room for a part of a frame: a buffer that is full would be read into a few bytes at a time.
fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < READ_BYTES {
        buffer.reserve(READ_BYTES);
    }
}
