//! `ModelStreamInfer`: who answers its requests, and in which order. Knows messages, not how they travel.
//!
//! Ordinary models answer strictly in the order of the requests; the responses of decoupled ones go as they
//! come, and their ids tell which request they belong to.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use kingpole_engine::Responder;
use kingpole_values::{ByteString, Error, InferResponse, Parameter, Result, Stage};
use kingpole_wire::grpc::{
    encode_infer_response_message, encode_stream_error_message, encode_stream_response_message,
};

use super::Metadata;
use super::infer::{Decoded, Form};
use crate::StreamDialect;
use crate::budget::Account;
use crate::classification;
use crate::connection::Shared;
use crate::outlet::{Outflow, Outlet, Want, Wanted, outlet, want};
use crate::regions::RegionOutputs;

/// Messages that are taken for writing at once; further ones stay where they count against the room.
const TAKEN_AT_ONCE: usize = 16;

/// What is said of a request.
enum Said {
    /// One response of several.
    Part(Vec<Bytes>),
    /// The last message; none for an end that the client need not be told of.
    Last(Vec<Bytes>),
    /// This ends the whole stream.
    Fatal(Error),
}

struct Answer {
    number: u64,
    /// Which turn it has among the answers that keep the order of the requests.
    turn: Option<u64>,
    said: Said,
}

/// Encodes what is said where it was made and queues it for the stream.
struct Reply {
    answers: Outlet<Answer>,
    wanted: Wanted,
    number: u64,
    turn: Option<u64>,
    id: Option<ByteString>,
    mirror_contents: bool,
    empty_final_response: bool,
    regions: Option<Box<RegionOutputs>>,
    dialect: StreamDialect,
    /// Set if an error of a model ends the stream: the number of the request being received, which only an
    /// error of the request's own can be answered within.
    receiving: Option<Arc<AtomicU64>>,
    memory: Arc<Account>,
    /// Why a part could not be given: said at the end.
    failure: Option<Error>,
}

impl Reply {
    fn encode(&self, mut response: InferResponse) -> Result<Vec<Bytes>> {
        let written = self.regions.as_ref().map(|regions| regions.write(&mut response)).transpose()?;
        let written = written.unwrap_or_default();
        let message = match self.dialect {
            StreamDialect::Triton => {
                let is_final = response.stage != Stage::Part;
                response.parameters.push(("triton_final_response".into(), Parameter::Bool(is_final)));
                encode_stream_response_message(&response, self.mirror_contents, &written)
            }
            StreamDialect::OpenInference => {
                encode_infer_response_message(&response, self.mirror_contents, &written)
            }
        };
        let mut pieces = message.into_chunks().into_vec();
        self.memory.hold_answer(&mut pieces)?;
        Ok(pieces)
    }

    fn last(&self, result: Result<InferResponse>) -> Said {
        let told = self.empty_final_response && self.dialect == StreamDialect::Triton;
        let message = match result {
            Ok(response) if response.stage == Stage::End && !told => return Said::Last(Vec::new()),
            result => result.and_then(|response| self.encode(response)),
        };
        match message {
            Ok(pieces) => Said::Last(pieces),
            // A bare response has no place for an error.
            Err(error) if self.dialect == StreamDialect::OpenInference => Said::Fatal(error),
            Err(error) if self.receiving.as_ref().is_some_and(|at| at.load(Relaxed) != self.number) => {
                Said::Fatal(error)
            }
            Err(error) => Said::Last(vec![encode_stream_error_message(&error, self.id.as_deref())]),
        }
    }
}

impl Responder for Reply {
    fn answer(mut self: Box<Self>, result: Result<InferResponse>) {
        let result = self.failure.take().map_or(result, Err);
        self.answers.put(Answer { number: self.number, turn: self.turn, said: self.last(result) });
    }

    fn is_cancelled(&mut self) -> bool {
        self.failure.is_some() || self.wanted.is_cancelled()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wanted.poll_cancelled(cx)
    }

    fn takes_parts(&self) -> bool {
        true
    }

    fn part(&mut self, response: InferResponse) {
        match self.encode(response) {
            Ok(pieces) => {
                let nbytes = pieces.iter().map(Bytes::len).sum();
                let answer = Answer { number: self.number, turn: None, said: Said::Part(pieces) };
                self.answers.put_part(answer, nbytes);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.answers.poll_ready(cx)
    }
}

/// The requests of one stream.
///
/// Each gets exactly one last message, none of which is said if it is a decoupled model's end.
pub(super) struct Exchange {
    shared: Rc<Shared>,
    dialect: StreamDialect,
    outlet: Outlet<Answer>,
    answers: Outflow<Answer>,
    /// Requests whose last message was not taken for writing; dropping one cancels it.
    open: HashMap<u64, Want>,
    received: u64,
    receiving: Option<Arc<AtomicU64>>,
    /// Answers that came before their turn, from `next_out` on.
    early: VecDeque<Option<Answer>>,
    next_turn: u64,
    next_out: u64,
    /// Set once an error has ended the stream: nothing is said after it.
    ended: bool,
}

/// What taking answers came to.
pub(super) enum Taken {
    /// All there were.
    All,
    /// As many as are taken at once.
    Enough,
    /// One of them ends the stream.
    Fatal(Error),
}

impl Exchange {
    pub(super) fn new(dialect: StreamDialect, errors_end_the_stream: bool, shared: Rc<Shared>) -> Self {
        let (outlet, answers) = outlet();
        Self {
            shared,
            dialect,
            outlet,
            answers,
            open: HashMap::new(),
            received: 0,
            receiving: errors_end_the_stream.then(Arc::default),
            early: VecDeque::new(),
            next_turn: 0,
            next_out: 0,
            ended: false,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// The way back of the next request.
    fn reply(&mut self, keeps_order: bool) -> Reply {
        self.received += 1;
        let (want, wanted) = want();
        self.open.insert(self.received, want);
        let turn = keeps_order.then_some(self.next_turn);
        self.next_turn += u64::from(keeps_order);
        Reply {
            answers: self.outlet.clone(),
            wanted,
            number: self.received,
            turn,
            id: None,
            mirror_contents: false,
            empty_final_response: false,
            regions: None,
            dialect: self.dialect,
            receiving: self.receiving.clone(),
            memory: Arc::clone(&self.shared.memory),
            failure: None,
        }
    }

    /// Take a message.
    pub(super) fn receive(&mut self, message: Bytes, metadata: &Metadata) {
        let Decoded { request, used_contents, empty_final_response, regions, .. } =
            match Form::Protobuf.decode(message, metadata, &self.shared) {
                Ok(decoded) => decoded,
                Err(error) => return self.refuse(error),
            };
        let shared = Rc::clone(&self.shared);
        let model = shared.engine.model(&request.model, request.version.as_deref());
        let mut reply = self.reply(!model.is_ok_and(|model| model.decoupled));
        reply.mirror_contents = used_contents && shared.configuration.mirror_contents;
        reply.empty_final_response = empty_final_response;
        reply.regions = regions;
        reply.id.clone_from(&request.id);
        self.mark_receiving(self.received);
        classification::infer(&shared.engine, request, Instant::now(), Box::new(reply));
        self.mark_receiving(0);
    }

    /// Answer a request that could not be read. Waits for its turn like any other.
    pub(super) fn refuse(&mut self, error: Error) {
        self.shared.engine.count_refused(error.code);
        let reply = self.reply(true);
        self.mark_receiving(self.received);
        Box::new(reply).answer(Err(error));
        self.mark_receiving(0);
    }

    fn mark_receiving(&self, number: u64) {
        if let Some(receiving) = &self.receiving {
            receiving.store(number, Relaxed);
        }
    }

    /// Take answers whose turn it is, as many as are written at once.
    pub(super) fn poll_answers(&mut self, cx: &mut Context<'_>, outgoing: &mut VecDeque<Bytes>) -> Taken {
        while outgoing.len() < TAKEN_AT_ONCE && !self.ended {
            let Poll::Ready(Some(answer)) = self.answers.poll_next(cx) else { return Taken::All };
            let Some(turn) = answer.turn else {
                if let Err(error) = self.take(answer, outgoing) {
                    return Taken::Fatal(error);
                }
                continue;
            };
            let place = usize::try_from(turn - self.next_out).unwrap_or(usize::MAX);
            if self.early.len() <= place {
                self.early.resize_with(place + 1, || None);
            }
            self.early[place] = Some(answer);
            while let Some(answer) = self.early.front_mut().and_then(Option::take) {
                self.early.pop_front();
                self.next_out += 1;
                if let Err(error) = self.take(answer, outgoing) {
                    return Taken::Fatal(error);
                }
            }
        }
        if self.ended { Taken::All } else { Taken::Enough }
    }

    fn take(&mut self, answer: Answer, outgoing: &mut VecDeque<Bytes>) -> Result<()> {
        match answer.said {
            Said::Part(pieces) => outgoing.extend(pieces),
            Said::Last(pieces) => {
                self.open.remove(&answer.number);
                outgoing.extend(pieces);
            }
            Said::Fatal(error) => {
                self.ended = true;
                self.open.clear();
                return Err(error);
            }
        }
        Ok(())
    }
}
