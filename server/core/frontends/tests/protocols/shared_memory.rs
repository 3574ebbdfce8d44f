//! Memory shared over Unix sockets: handed over, used both ways, and abused.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kingpole_memory::{Mapping, SEALS};
use kingpole_values::{Code, InferRequest, RequestedOutput, Shape, Tensor, write_byte_string};
use kingpole_wire::frame::{self, Frame, FrameReader, Message, SharedTensor};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{Read, Write};

use crate::grpc::request;
use crate::server::Server;

const ARENA_BYTES: u64 = 1 << 20;

struct Client {
    stream: UnixStream,
    reader: FrameReader,
    exchange: u64,
}

fn start() -> (Server, PathBuf) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("kingpole-memory-{}-{number}", std::process::id()));
    let server = Server::start_with(
        &["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())],
        kingpole_frontends::FrontendConfiguration::default(),
    );
    (server, path)
}

fn memfd(bytes: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

impl Client {
    fn connect(path: &PathBuf) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, reader: FrameReader::new(1 << 24), exchange: 0 }
    }

    fn next(&mut self) -> Option<Frame> {
        let mut piece = vec![0; 65536];
        loop {
            match self.reader.next_frame().unwrap() {
                Some(Frame { message: Message::Credit { .. }, exchange: 0 }) => {}
                Some(frame) => return Some(frame),
                None => match self.stream.read(&mut piece) {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => self.reader.push(&piece[..read]),
                },
            }
        }
    }

    fn send_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        let sent =
            rustix::net::sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty());
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn hand_over(&mut self, arena: u32, nbytes: u64, fd: Option<&OwnedFd>) -> Message {
        self.exchange += 1;
        let bytes = frame::encode_hand_over(arena, nbytes, self.exchange).into_bytes();
        match fd {
            Some(fd) => self.send_with(&bytes, &[fd.as_fd()]),
            None => self.stream.write_all(&bytes).unwrap(),
        }
        let answer = self.next().unwrap();
        assert_eq!(answer.exchange, self.exchange);
        answer.message
    }

    fn arena(&mut self, number: u32) -> Mapping {
        let fd = memfd(ARENA_BYTES, SEALS);
        assert_eq!(self.hand_over(number, ARENA_BYTES, Some(&fd)), Message::Done);
        Mapping::of(&fd).unwrap()
    }

    fn infer(&mut self, request: &InferRequest, inputs: &[SharedTensor], places: &[SharedTensor]) -> Message {
        self.exchange += 1;
        let bytes = frame::encode_request_in_place(request, inputs, places, self.exchange).into_bytes();
        self.stream.write_all(&bytes).unwrap();
        self.next().unwrap().message
    }
}

fn place(arena: u32, offset: u64, nbytes: u64) -> SharedTensor {
    SharedTensor { index: 0, arena, offset, nbytes }
}

fn floats(count: i64) -> InferRequest {
    let mut asked = request("id", &[]);
    asked.inputs[0].shape = Shape::new(&[1, count]);
    asked.outputs = vec![RequestedOutput { name: "y".into(), parameters: Vec::new() }];
    asked
}

fn code(message: &Message) -> Code {
    match message {
        Message::Error(error) => error.error.code,
        other => panic!("not an error: {other:?}"),
    }
}

#[test]
fn neither_direction_goes_through_the_socket() {
    let (server, path) = start();
    let mut client = Client::connect(&path);
    let memory = client.arena(3);
    for count in [4, 50_000i64] {
        let nbytes = u64::try_from(count).unwrap() * 4;
        let sent: Vec<u8> =
            (0..count).flat_map(|n| f32::from(u16::try_from(n % 600).unwrap()).to_le_bytes()).collect();
        memory.write(64, &sent);
        let (input, output) = (place(3, 64, nbytes), place(3, 512 * 1024, nbytes));
        let answered = client.infer(&floats(count), &[input], &[output]);
        let Message::Response { response, shared } = answered else { panic!("{answered:?}") };
        assert_eq!(shared, [output]);
        assert!(response.outputs[0].data.is_empty());
        assert_eq!(memory.copy(512 * 1024..512 * 1024 + sent.len()), sent);
    }
    drop(client);
    server.expect_nothing_held();
}

#[test]
fn an_output_that_does_not_fit_comes_in_the_frame() {
    let (_server, path) = start();
    let mut client = Client::connect(&path);
    let _memory = client.arena(0);
    let answered = client.infer(&floats(4), &[place(0, 0, 16)], &[place(0, 64, 15)]);
    let Message::Response { response, shared } = answered else { panic!("{answered:?}") };
    assert!(shared.is_empty());
    assert_eq!(response.outputs[0].data, [0; 16][..]);
}

#[test]
fn what_is_not_a_sealed_memfd_of_the_size_said_is_refused() {
    let (_server, path) = start();
    let mut client = Client::connect(&path);
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
        let fd = memfd(ARENA_BYTES, SEALS.difference(missing));
        assert_eq!(code(&client.hand_over(0, ARENA_BYTES, Some(&fd))), Code::InvalidArgument);
    }
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    assert_eq!(code(&client.hand_over(0, ARENA_BYTES, Some(&null))), Code::InvalidArgument);
    assert_eq!(code(&client.hand_over(0, ARENA_BYTES, None)), Code::InvalidArgument);
    for said in [0, 1, ARENA_BYTES - 1, ARENA_BYTES + 1] {
        let fd = memfd(ARENA_BYTES, SEALS);
        assert_eq!(code(&client.hand_over(0, said, Some(&fd))), Code::InvalidArgument, "{said}");
    }
    let fd = memfd(ARENA_BYTES, SEALS);
    assert_eq!(code(&client.hand_over(0, u64::MAX, Some(&fd))), Code::ResourceExhausted);
    client.arena(0);
    let again = memfd(ARENA_BYTES, SEALS);
    assert_eq!(code(&client.hand_over(0, ARENA_BYTES, Some(&again))), Code::AlreadyExists);
}

#[test]
fn arenas_are_counted_and_charged() {
    let (server, path) = start();
    let mut client = Client::connect(&path);
    for number in 0..16 {
        client.arena(number);
    }
    assert!(server.memory.used_bytes() >= 16 << 20);
    let fd = memfd(ARENA_BYTES, SEALS);
    assert_eq!(code(&client.hand_over(99, ARENA_BYTES, Some(&fd))), Code::ResourceExhausted);
    // One that is given back makes room; nobody else's can be.
    client.exchange += 1;
    client.stream.write_all(&frame::encode_release(7, client.exchange).into_bytes()).unwrap();
    assert_eq!(client.next().unwrap().message, Message::Done);
    client.stream.write_all(&frame::encode_release(7, 1000).into_bytes()).unwrap();
    assert_eq!(code(&client.next().unwrap().message), Code::NotFound);
    client.arena(99);
    drop(client);
    server.expect_nothing_held();
}

#[test]
fn places_outside_of_what_was_handed_over_are_refused() {
    let (_server, path) = start();
    let mut client = Client::connect(&path);
    let _memory = client.arena(1);
    let good = place(1, 0, 16);
    for (wrong, expected) in [
        (place(2, 0, 16), Code::NotFound),
        (place(1, ARENA_BYTES - 15, 16), Code::InvalidArgument),
        (place(1, u64::MAX, 16), Code::InvalidArgument),
        (place(1, 16, u64::MAX), Code::InvalidArgument),
        (place(1, u64::MAX, u64::MAX), Code::InvalidArgument),
    ] {
        assert_eq!(code(&client.infer(&floats(4), &[wrong], &[])), expected, "input {wrong:?}");
        assert_eq!(code(&client.infer(&floats(4), &[good], &[wrong])), expected, "output {wrong:?}");
    }
    // A range that does not hold what the shape says.
    assert_eq!(code(&client.infer(&floats(4), &[place(1, 0, 12)], &[])), Code::InvalidArgument);
    assert!(matches!(client.infer(&floats(4), &[good], &[]), Message::Response { .. }));
}

#[test]
fn all_inputs_together_are_no_larger_than_a_request_may_be() {
    let (_server, path) = start();
    let mut client = Client::connect(&path);
    let _memory = client.arena(1);
    let mut asked = floats(1 << 18);
    asked.inputs = vec![asked.inputs[0].clone(); 2];
    let inputs = [place(1, 0, ARENA_BYTES), SharedTensor { index: 1, ..place(1, 0, ARENA_BYTES) }];
    assert_eq!(code(&client.infer(&asked, &inputs, &[])), Code::ResourceExhausted);
}

#[test]
fn shared_memory_is_for_streams_over_unix_sockets() {
    let (server, _path) = start();
    let mut stream = server.connect();
    let mut reader = FrameReader::new(1 << 20);
    let asked = frame::encode_request(&floats(4), &[place(1, 0, 16)], 8).into_bytes();
    stream.write_all(&[&frame::encode_hand_over(1, 4096, 7).into_bytes()[..], &asked].concat()).unwrap();
    let mut found = Vec::new();
    let mut piece = [0; 4096];
    while found.len() < 2 {
        match reader.next_frame().unwrap() {
            Some(Frame { message: Message::Credit { .. }, .. }) => {}
            Some(frame) => found.push(code(&frame.message)),
            None => {
                let read = stream.read(&mut piece).unwrap();
                reader.push(&piece[..read]);
            }
        }
    }
    assert_eq!(found, [Code::Unimplemented; 2]);
}

#[test]
fn a_client_that_floods_the_server_with_descriptors_loses_its_connection() {
    let (server, path) = start();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    // Many at once, and many one by one.
    for (count, each) in [(1, 8), (64, 1)] {
        let mut client = Client::connect(&path);
        for _ in 0..count {
            let bytes = frame::encode_server_info_request(1).into_bytes();
            let fds = vec![null.as_fd(); each];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            let flags = SendFlags::NOSIGNAL;
            if rustix::net::sendmsg(&client.stream, &[IoSlice::new(&bytes)], &mut ancillary, flags).is_err() {
                break;
            }
        }
        while client.next().is_some() {}
    }
    assert_eq!(server.get("/v2/health/live").status, 200);
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let (server, path) = start();
    let held = server.publish_held();
    let mut client = Client::connect(&path);
    let memory = client.arena(1);
    let mut asked = floats(50_000);
    asked.model = "held".into();
    let bytes =
        frame::encode_request_in_place(&asked, &[place(1, 0, 200_000)], &[place(1, 400_000, 200_000)], 9);
    client.stream.write_all(&bytes.into_bytes()).unwrap();
    // The server has read it once it answers what came after.
    client.stream.write_all(&frame::encode_server_info_request(10).into_bytes()).unwrap();
    assert_eq!(client.next().unwrap().exchange, 10);
    drop(client);
    drop(memory);
    held.release();
    server.expect_nothing_held();
    assert_eq!(server.get("/v2/health/live").status, 200);
}

#[test]
fn a_cancelled_request_gives_its_places_back_by_its_number() {
    let (server, path) = start();
    let held = server.publish_held();
    let mut client = Client::connect(&path);
    let _memory = client.arena(1);
    let mut asked = floats(4);
    asked.model = "held".into();
    let bytes =
        frame::encode_request_in_place(&asked, &[place(1, 0, 16)], &[place(1, 64, 16)], 9).into_bytes();
    client.stream.write_all(&[&bytes[..], &frame::encode_cancel(9).into_bytes()].concat()).unwrap();
    client.stream.write_all(&frame::encode_server_info_request(10).into_bytes()).unwrap();
    assert_eq!(client.next().unwrap().exchange, 10);
    held.release();
    let credit = client.next().unwrap();
    assert_eq!((credit.exchange, credit.message), (9, Message::Credit { requests: 1 }));
}

/// Write to the memory from another thread while `infer` is called over and over.
fn while_changing(memory: &Mapping, change: impl Fn(&Mapping, u32) + Sync, mut infer: impl FnMut()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when `infer` panics: the scope waits for its thread.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                change(memory, round);
                round += 1;
            }
        });
        for _ in 0..300 {
            infer();
        }
    });
}

#[test]
fn lengths_and_truths_that_change_while_they_are_judged_never_reach_a_model_unjudged() {
    let (_server, path) = start();
    let mut client = Client::connect(&path);
    let memory = client.arena(1);
    let mut two = Vec::new();
    write_byte_string(&mut two, &vec![7; 60_000]);
    write_byte_string(&mut two, b"x");
    memory.write(0, &two);
    let mut words = floats(2);
    words.model = "words".into();
    words.inputs[0] = Tensor { datatype: kingpole_values::Datatype::Bytes, ..words.inputs[0].clone() };
    let nbytes = two.len() as u64;
    let lengths = |memory: &Mapping, round: u32| {
        memory.write(0, &[0xff, if round.is_multiple_of(2) { 0xff } else { 0 }, 0, 0]);
        memory.write(0, &60_000u32.to_le_bytes());
    };
    let mut answered = 0;
    while_changing(&memory, lengths, || match client.infer(&words, &[place(1, 0, nbytes)], &[]) {
        Message::Response { response, .. } => {
            answered += 1;
            response.outputs[0].check_size().expect("what was judged is what was executed");
        }
        error => assert_eq!(code(&error), Code::InvalidArgument),
    });
    assert!(answered > 0, "some are read whole");
    let mut truth = floats(50_000);
    truth.model = "truth".into();
    truth.inputs[0] = Tensor { datatype: kingpole_values::Datatype::Bool, ..truth.inputs[0].clone() };
    memory.write(0, &vec![0; 50_000]);
    let bytes = |memory: &Mapping, round: u32| {
        memory.write(25_000, &[u8::try_from(round % 4).unwrap()]);
    };
    while_changing(&memory, bytes, || match client.infer(&truth, &[place(1, 0, 50_000)], &[]) {
        Message::Response { response, .. } => {
            assert!(response.outputs[0].data.iter().all(|&byte| byte <= 1));
        }
        error => assert_eq!(code(&error), Code::InvalidArgument),
    });
}

#[test]
fn a_model_on_the_reactor_computes_with_a_copy() {
    let (server, path) = start();
    server.publish_attentive();
    let mut client = Client::connect(&path);
    let memory = client.arena(1);
    let mut asked = floats(50_000);
    asked.model = "attentive".into();
    let change = |memory: &Mapping, round: u32| memory.write(100_000, &round.to_le_bytes());
    while_changing(&memory, change, || {
        let answered = client.infer(&asked, &[place(1, 0, 200_000)], &[]);
        assert!(matches!(answered, Message::Response { .. }), "{answered:?}");
    });
}
