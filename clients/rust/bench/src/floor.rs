//! The bare transport: bytes made in advance, and an answer that nobody looks into.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kingpole_client::Tensor;
use kingpole_wire::frame::{MEDIA_TYPE, encode_request};
use tokio::net::TcpStream;

use crate::Failed;

pub enum Floor {
    Http { sender: http1::SendRequest<Full<Bytes>>, authority: String, frame: Bytes },
    Grpc { sender: h2::client::SendRequest<Bytes>, uri: http::Uri, message: Bytes },
}

impl Floor {
    pub async fn connect(url: &str, x: &Tensor) -> Result<Self, Failed> {
        let (scheme, authority) = url.split_once("://").ok_or("a URL")?;
        let request = asked(x);
        let frame = encode_request(&request, &[], 1).into_bytes();
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        if scheme == "http" {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Self::Http { sender, authority: authority.to_owned(), frame });
        }
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(4 << 20)
            .initial_connection_window_size((1 << 31) - 1)
            .max_frame_size(1 << 20);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::spawn(connection);
        let mut message = BytesMut::with_capacity(frame.len() + 5);
        message.put_u8(0);
        message.put_u32(u32::try_from(frame.len())?);
        message.put_slice(&frame);
        let uri = format!("http://{authority}/kingpole.v1.Inference/Infer").parse()?;
        Ok(Self::Grpc { sender, uri, message: message.freeze() })
    }

    /// Ask; the bytes of the answer.
    pub async fn ask(&mut self) -> Result<usize, Failed> {
        match self {
            Self::Http { sender, authority, frame } => {
                let request = Request::post("/v1/infer")
                    .header("host", &*authority)
                    .header("content-type", MEDIA_TYPE)
                    .body(Full::new(frame.clone()))?;
                sender.ready().await?;
                let mut body = sender.send_request(request).await?.into_body();
                let mut nbytes = 0;
                while let Some(piece) = body.frame().await {
                    nbytes += piece?.data_ref().map_or(0, Bytes::len);
                }
                Ok(nbytes)
            }
            Self::Grpc { sender, uri, message } => {
                let mut request = Request::new(());
                *request.method_mut() = Method::POST;
                *request.uri_mut() = uri.clone();
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().insert("content-type", "application/grpc".parse()?);
                request.headers_mut().insert("te", "trailers".parse()?);
                let mut ready = sender.clone().ready().await?;
                let (response, mut stream) = ready.send_request(request, false)?;
                stream.send_data(message.clone(), true)?;
                let mut body = response.await?.into_body();
                let mut nbytes = 0;
                while let Some(piece) = body.data().await {
                    let piece = piece?;
                    body.flow_control().release_capacity(piece.len())?;
                    nbytes += piece.len();
                }
                Ok(nbytes)
            }
        }
    }
}

fn asked(x: &Tensor) -> kingpole_values::InferRequest {
    kingpole_values::InferRequest {
        model: "echo-fp32".into(),
        inputs: vec![x.clone()],
        ..kingpole_values::InferRequest::default()
    }
}
