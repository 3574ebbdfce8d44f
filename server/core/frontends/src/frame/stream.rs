//! Frames on a connection of their own: pipelined, answered in any order.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use kingpole_values::Error;
use kingpole_wire::Scatter;
use kingpole_wire::frame::FrameReader;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

use super::{Conversation, Outgoing, encode_error};
use crate::connection::Shared;
use crate::socket::Socket;

/// Requests of one connection that may be read and not yet answered: the stream's backpressure.
const MAX_IN_FLIGHT: usize = 1024;
/// Smaller pieces are written together.
const TOGETHER_BYTES: usize = 16 * 1024;

/// Exchange of an error that belongs to no request.
const NO_EXCHANGE: u64 = 0;

/// Serve one connection until the client has ended it, or the server drains, and all is answered.
pub(crate) async fn serve(socket: Socket, shared: Rc<Shared>) {
    let (input, output) = tokio::io::split(socket);
    let (sender, answers) = mpsc::unbounded_channel();
    let conversation = RefCell::new(Conversation::new(Rc::clone(&shared), sender.clone()));
    let answered = Notify::new();
    let reading = async {
        tokio::select! {
            () = read(input, &shared, &conversation, &sender, &answered) => {}
            () = Rc::clone(&shared).drained() => {}
        }
        // What was asked is still owed.
        while conversation.borrow().in_flight() > 0 {
            answered.notified().await;
        }
        drop(sender);
        // The conversation holds the other sender; without it the writer knows that all is written.
        drop(conversation.replace(Conversation::new(shared, mpsc::unbounded_channel().0)));
    };
    let writing = write(output, &conversation, answers, &answered);
    tokio::pin!(reading, writing);
    tokio::select! {
        // The client is gone when it cannot be written to; dropping the channel cancels the rest.
        _ = &mut writing => {}
        () = &mut reading => { let _ = writing.await; }
    }
}

async fn read(
    mut input: ReadHalf<Socket>,
    shared: &Rc<Shared>,
    conversation: &RefCell<Conversation>,
    immediate: &mpsc::UnboundedSender<Outgoing>,
    answered: &Notify,
) {
    let mut reader = FrameReader::new(shared.configuration.max_body_bytes);
    let say = |frame: Scatter| {
        // A writer that is gone ends the connection by itself.
        let _ = immediate.send(Outgoing { exchange: NO_EXCHANGE, frame });
    };
    loop {
        loop {
            if conversation.borrow().in_flight() >= MAX_IN_FLIGHT {
                answered.notified().await;
                continue;
            }
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    let answer = conversation.borrow_mut().receive(frame, None);
                    answer.into_iter().for_each(say);
                }
                Ok(None) => break,
                Err(error) => {
                    // The place where the next frame begins is lost.
                    shared.engine.count_refused(error.code);
                    return say(encode_error(&error, None, NO_EXCHANGE));
                }
            }
        }
        match input.read_buf(reader.buffer()).await {
            Ok(0) if reader.is_at_boundary() => return,
            Ok(0) => return say(encode_error(&Error::invalid("the frame is cut off"), None, NO_EXCHANGE)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

async fn write(
    mut output: WriteHalf<Socket>,
    conversation: &RefCell<Conversation>,
    mut answers: mpsc::UnboundedReceiver<Outgoing>,
    answered: &Notify,
) -> io::Result<()> {
    let mut together = BytesMut::new();
    while let Some(first) = answers.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let wanted = conversation.borrow_mut().finish(&outgoing);
            if wanted {
                for piece in outgoing.frame.into_chunks() {
                    if piece.len() >= TOGETHER_BYTES {
                        output.write_all_buf(&mut together).await?;
                        output.write_all(&piece).await?;
                    } else {
                        together.extend_from_slice(&piece);
                    }
                }
            }
            answered.notify_one();
            if together.len() >= TOGETHER_BYTES {
                output.write_all_buf(&mut together).await?;
            }
            next = answers.try_recv().ok();
        }
        output.write_all_buf(&mut together).await?;
        output.flush().await?;
    }
    output.shutdown().await
}
