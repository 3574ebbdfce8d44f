//! The stream of frames to an address, opened when it is first needed and again after it has ended.

use std::sync::Arc;

use http::HeaderValue;
use kingpole_wire::Scatter;
use kingpole_wire::frame::FrameReader;
use tokio::sync::Mutex;

use crate::address::{Address, Scheme};
use crate::answer::{ONLY_EXCHANGE, check_frame};
use crate::clock::Deadline;
use crate::connect::connect;
use crate::conversation::Conversation;
use crate::frames::{FrameSource, converse};
use crate::grpc::{self, Channel};
use crate::responses::Source;
use crate::tls::Trust;
use crate::{Error, Request, Result};

/// Where a line leads, and how.
pub(crate) struct Line {
    pub(crate) address: Address,
    pub(crate) trust: Arc<Trust>,
    pub(crate) token: Option<HeaderValue>,
    pub(crate) limit: usize,
    pub(crate) shared_bytes: usize,
    pub(crate) current: Mutex<Option<Arc<Conversation>>>,
    pub(crate) channel: Mutex<Option<Channel>>,
}

impl Line {
    fn is_grpc(&self) -> bool {
        matches!(self.address, Address::Tcp { scheme: Scheme::Grpc, .. })
    }

    /// The stream that there is now.
    pub(crate) async fn conversation(&self, deadline: Deadline) -> Result<Arc<Conversation>> {
        let ready = async {
            let mut current = self.current.lock().await;
            match &*current {
                Some(conversation) if conversation.is_usable() => return Ok(Arc::clone(conversation)),
                Some(conversation) if conversation.is_doubted() => *self.channel.lock().await = None,
                _ => {}
            }
            let opened = Arc::new(self.open(deadline).await?);
            *current = Some(Arc::clone(&opened));
            Ok(opened)
        };
        // Another may be connecting, with a deadline of its own.
        let late = || format!("{} did not accept a connection in time", self.address);
        deadline.limit(ready, late).await
    }

    async fn open(&self, deadline: Deadline) -> Result<Conversation> {
        if self.is_grpc() {
            return self.channel(deadline).await?.converse(self.limit).await;
        }
        let socket = connect(&self.address, &self.trust, b"", deadline).await?;
        #[cfg(target_os = "linux")]
        if self.shared_bytes > 0
            && let crate::connect::Socket::Unix(stream) = socket
        {
            return self.share(stream, deadline).await;
        }
        Ok(converse(socket, self.address.to_string(), self.limit))
    }

    /// A stream whose first message gives the server the memory.
    #[cfg(target_os = "linux")]
    async fn share(&self, stream: tokio::net::UnixStream, deadline: Deadline) -> Result<Conversation> {
        use crate::arena::{ARENA, Arena};
        use crate::connect::Socket;

        let (arena, descriptor) = Arena::new(self.shared_bytes)?;
        // The descriptor goes with bytes on a socket that the stream's tasks have not yet, so it goes first.
        let second = stream
            .into_std()
            .and_then(|stream| Ok((stream.try_clone()?, tokio::net::UnixStream::from_std(stream)?)));
        let (first, stream) =
            second.map_err(|error| crate::frames::broken(&self.address.to_string(), error))?;
        let mut conversation = converse(Socket::Unix(stream), self.address.to_string(), self.limit);
        let send =
            |frame: Scatter| async move { crate::descriptor::send(&first, &descriptor, &frame.into_bytes()) };
        let nbytes = arena.nbytes() as u64;
        conversation.hand_over(ARENA, nbytes, deadline, send).await?;
        conversation.share(arena);
        Ok(conversation)
    }

    async fn channel(&self, deadline: Deadline) -> Result<Channel> {
        let mut held = self.channel.lock().await;
        if let Some(channel) = &mut *held
            && channel.is_usable().await
        {
            return Ok(channel.clone());
        }
        let socket = connect(&self.address, &self.trust, b"h2", deadline).await?;
        let uri = grpc::uri(self.address.is_secure(), &self.address.authority())?;
        let headers = grpc::headers(self.token.as_ref());
        let channel = Channel::open(socket, &self.address.to_string(), uri, headers).await?;
        Ok(held.insert(channel).clone())
    }

    /// Send a request on a connection or call of its own, whose answer may be any number of responses.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        deadline: Deadline,
    ) -> Result<(Source, FrameReader)> {
        let frame = check_frame(kingpole_wire::frame::encode_request(&request.infer, &[], ONLY_EXCHANGE))?;
        let opened = async {
            if self.is_grpc() {
                return Ok(Source::Grpc(self.channel(deadline).await?.ask(frame).await?));
            }
            let socket = connect(&self.address, &self.trust, b"", deadline).await?;
            Ok(Source::Frames(FrameSource::open(socket, frame, self.address.to_string()).await?))
        };
        let late = || format!("{} did not take the request in time", self.address);
        Ok((deadline.limit(opened, late).await?, FrameReader::new(self.limit)))
    }
}

/// Refuse a token that cannot travel, or could not stand in a header; else the header's value.
pub(crate) fn authorization(token: &str, address: &Address) -> Result<HeaderValue> {
    if !address.takes_token() {
        return Err(Error::invalid(format!(
            "a token cannot travel over {address}: use http, https, grpc or grpcs"
        )));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::invalid("the token has characters that cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
