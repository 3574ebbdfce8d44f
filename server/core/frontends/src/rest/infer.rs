//! Inference over Open Inference's HTTP, with the binary tensor extension.

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use kingpole_engine::ModelSpec;
use kingpole_values::{
    Code, Datatype, Error, InferRequest, InferResponse, Result, Shape, Tensor, Timing, write_byte_string,
};
use kingpole_wire::RegionRange;
use kingpole_wire::rest::{HEADER_LENGTH, RestReply, decode_infer_request, encode_infer_response_in_regions};

use super::Named;
use crate::coding::Wanted;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, JSON, OCTETS};
use crate::status::Dialect;
use crate::{body, pack, regions, respond};

const HEADER_LENGTH_NAME: HeaderName = HeaderName::from_static(HEADER_LENGTH);
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

pub(super) async fn serve(request: HttpRequest, named: &Named<'_>, shared: &Shared) -> HttpResponse {
    let HttpRequest { headers, body, received, .. } = request;
    let wanted = Wanted::of(&headers);
    if let Some(refusal) = Dialect::Json.unless_possible(wanted) {
        shared.engine.count_refused(Code::InvalidArgument);
        return refusal;
    }
    let refuse = |error: &Error| {
        shared.engine.count_refused(error.code);
        Dialect::Json.error(error)
    };
    let body = match body::read(body, &headers, shared).await {
        Ok(body) => body,
        Err(error) => {
            let refusal = Dialect::Json.body_error(&error);
            shared.engine.count_refused(Error::from(error).code);
            return refusal;
        }
    };
    let decoded = number(&headers, &HEADER_LENGTH_NAME).and_then(|header_length| {
        let header_length = header_length.map(usize::try_from).transpose();
        decode_infer_request(body, header_length.unwrap_or(Some(usize::MAX)))
    });
    let (mut request, reply, regions) = match decoded {
        Ok(decoded) if decoded.raw => match complete(decoded.request.inputs, named, shared) {
            Ok(input) => {
                let request = InferRequest {
                    model: named.model.into(),
                    version: named.version.map(Into::into),
                    inputs: vec![input],
                    ..InferRequest::default()
                };
                (request, decoded.reply, None)
            }
            Err(error) => return refuse(&error),
        },
        Ok(decoded) => {
            let mut request = InferRequest {
                model: named.model.into(),
                version: named.version.map(Into::into),
                ..decoded.request
            };
            match regions::fill(&mut request, decoded.regions, shared) {
                Ok(regions) => (request, decoded.reply, regions),
                Err(error) => return refuse(&error),
            }
        }
        Err(error) => return refuse(&error),
    };
    match respond::timeout_us(&headers) {
        Ok(timeout_us) => respond::shorten(&mut request, timeout_us),
        Err(error) => return refuse(&error),
    }
    if let Some(pattern) = &shared.configuration.http_headers {
        pattern.forward(&headers, &mut request.parameters);
    }
    let answered = respond::infer(&shared.engine, request, received).await.and_then(|mut response| {
        let written = regions.map(|regions| regions.write(&mut response)).transpose()?;
        Ok((response, written.unwrap_or_default()))
    });
    match answered {
        Ok((response, written)) => {
            let answer = write(&response, &reply, &written, &headers, shared);
            pack::response(answer, wanted, Dialect::Json, shared).await
        }
        Err(error) => Dialect::Json.error(&error),
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Error::invalid(format!("the header {name} is not a number")))
}

fn write(
    response: &InferResponse,
    reply: &RestReply,
    regions: &[(usize, RegionRange)],
    headers: &HeaderMap,
    shared: &Shared,
) -> HttpResponse {
    let held = encode_infer_response_in_regions(response, reply, regions).and_then(|mut encoded| {
        shared.memory.hold_answer(encoded.body.chunks_mut())?;
        Ok(encoded)
    });
    let encoded = match held {
        Ok(encoded) => encoded,
        Err(error) => return Dialect::Json.error(&error),
    };
    let content_type = if encoded.header_length.is_some() { OCTETS } else { JSON };
    let mut written = HttpResponse::new(StatusCode::OK, content_type, encoded.body.into_chunks().into_vec());
    if let Some(header_length) = encoded.header_length {
        written = written.with(HEADER_LENGTH_NAME, header_length.into());
    }
    if headers.contains_key("kingpole-timing") {
        written = written.with(SERVER_TIMING, timing(&response.timing));
    }
    written
}

/// How the request was served, in the form that browsers and proxies show.
///
/// Source: W3C Server Timing; durations are milliseconds there.
fn timing(timing: &Timing) -> HeaderValue {
    let milliseconds = |us: u64| format!("{}.{:03}", us / 1000, us % 1000);
    let text = format!(
        "queue;dur={}, execute;dur={}, batch;desc=\"{} {}\"",
        milliseconds(timing.queue_us),
        milliseconds(timing.execute_us),
        timing.batch_rows,
        timing.reason
    );
    // Numbers and words of ours are all visible ASCII.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("queue"))
}

/// Name, datatype and shape of a body that is one tensor's bytes, from the model's only input.
fn complete(inputs: Vec<Tensor>, named: &Named<'_>, shared: &Shared) -> Result<Tensor> {
    let specification = shared.engine.model(named.model, named.version)?;
    let data = inputs.into_iter().next().map(|input| input.data).unwrap_or_default();
    raw_input(&specification, data)
}

fn raw_input(specification: &ModelSpec, data: Bytes) -> Result<Tensor> {
    let [input] = specification.inputs.as_slice() else {
        return Err(Error::invalid(format!(
            "a raw binary request needs a model with one input; '{}' has {}",
            specification.name,
            specification.inputs.len()
        )));
    };
    if data.is_empty() && input.datatype != Datatype::Bytes {
        // Nothing sent is far likelier a fault than a tensor without elements.
        return Err(Error::invalid(format!(
            "the raw binary request for input '{}' has no bytes",
            input.name
        )));
    }
    let mut shape = input.shape.clone();
    if specification.max_batch_size > 0 {
        shape.dimensions_mut().iter_mut().take(1).for_each(|rows| *rows = 1);
    }
    let ambiguous = || {
        Error::invalid(format!(
            "a raw binary request cannot say the shape of input '{}', which is {} {}",
            input.name, input.datatype, input.shape
        ))
    };
    let data = match input.datatype.element_bytes() {
        None => {
            shape.dimensions_mut().iter_mut().filter(|size| **size < 0).for_each(|size| *size = 1);
            if shape.elements() != Some(1) || input.datatype != Datatype::Bytes {
                return Err(ambiguous());
            }
            let mut element = BytesMut::with_capacity(data.len() + 4);
            write_byte_string(&mut element, &data);
            element.freeze()
        }
        Some(element_bytes) => {
            fill_variable(&mut shape, data.len(), element_bytes).ok_or_else(ambiguous)?;
            data
        }
    };
    Ok(Tensor { name: input.name.clone(), datatype: input.datatype, shape, data })
}

/// Put the size that `nbytes` implies in place of the only variable dimension, if there is one.
fn fill_variable(shape: &mut Shape, nbytes: usize, element_bytes: usize) -> Option<()> {
    let fixed: Shape = shape.iter().copied().filter(|&size| size >= 0).collect();
    let mut variable = shape.dimensions_mut().iter_mut().filter(|size| **size < 0);
    if let Some(size) = variable.next() {
        let row_bytes = fixed.elements()?.checked_mul(element_bytes).filter(|&row_bytes| row_bytes > 0)?;
        *size = i64::try_from(nbytes / row_bytes).ok()?;
    }
    variable.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variable_dimension_follows_from_the_bytes() {
        let filled = |dimensions: &[i64], nbytes| {
            let mut shape = Shape::new(dimensions);
            fill_variable(&mut shape, nbytes, 4).map(|()| shape.to_vec())
        };
        assert_eq!(filled(&[1, -1], 64), Some(vec![1, 16]));
        assert_eq!(filled(&[1, -1, 2], 64), Some(vec![1, 8, 2]));
        assert_eq!(filled(&[1, 3], 12), Some(vec![1, 3]));
        assert_eq!(filled(&[-1, -1], 64), None);
        assert_eq!(filled(&[0, -1], 64), None);
    }

    #[test]
    fn timing_is_written_in_milliseconds() {
        let served = Timing { queue_us: 12, execute_us: 3456, batch_rows: 30, reason: "full" };
        assert_eq!(timing(&served), "queue;dur=0.012, execute;dur=3.456, batch;desc=\"30 full\"");
    }
}
