//! A server on a port that the system chooses, and a plain HTTP/1.1 client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kingpole_engine::{
    Clock, Engine, EngineConfiguration, InlineModel, Lane, LaneBatch, LaneFailure, LaneFuture, LaneOutcome,
    Model, ModelSpec, Placement, Pool, Profile, ServerInfo, Shared, TensorSpec,
};
use kingpole_frontends::{FrontendConfiguration, Listeners, MemoryBudget, reactor, run_reactor};
use kingpole_values::{Datatype, Error, Result, Shape, Tensor};
use tokio::sync::watch;

struct Identity;

impl InlineModel for Identity {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let disliked = 666f32.to_le_bytes();
        if inputs[0].data.chunks(4).any(|element| element == disliked) {
            return Err(Error::internal("the model does not like 666"));
        }
        Ok(vec![Tensor { name: "y".into(), ..inputs[0].clone() }])
    }
}

/// Looks at its input again and again, and fails if it is not the same.
struct Attentive;

impl InlineModel for Attentive {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let first = inputs[0].data.to_vec();
        for _ in 0..20 {
            if std::hint::black_box(&inputs[0].data[..]) != first {
                return Err(Error::internal("the input has changed"));
            }
        }
        Ok(vec![Tensor { name: "y".into(), ..inputs[0].clone() }])
    }
}

/// Gives much for little.
struct Swell;

pub const SWOLLEN_BYTES: usize = 256 << 10;

impl InlineModel for Swell {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let rows = inputs[0].shape[0];
        let columns = i64::try_from(SWOLLEN_BYTES / 4).unwrap();
        let data = vec![0; SWOLLEN_BYTES * usize::try_from(rows).unwrap()].into();
        Ok(vec![Tensor {
            name: "y".into(),
            datatype: Datatype::Fp32,
            shape: Shape::new(&[rows, columns]),
            data,
        }])
    }
}

struct EchoLane;

impl Lane for EchoLane {
    fn execute(&self, _: u32, batch: LaneBatch) -> LaneFuture {
        let input = &batch.inputs[0];
        let data: Vec<u8> = input.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let (shape, datatype) = (input.shape.clone(), input.datatype);
        let output = Tensor { name: "y".into(), datatype, shape, data: data.into() };
        Box::pin(std::future::ready(Ok(LaneOutcome { outputs: vec![output], execute_us: 1 })))
    }
}

/// What a decoupled model has done.
#[derive(Default)]
pub struct Counted {
    pub given: AtomicUsize,
    pub ended: AtomicUsize,
}

impl Counted {
    /// Wait until it gives no more for a while: how many it has given.
    pub fn settled(&self) -> usize {
        let mut seen = (self.given.load(Relaxed), Instant::now());
        while seen.1.elapsed() < Duration::from_millis(300) {
            std::thread::yield_now();
            let given = self.given.load(Relaxed);
            if given != seen.0 {
                seen = (given, Instant::now());
            }
        }
        seen.0
    }

    /// Wait until so many batches have ended, to their end or not.
    pub fn expect_ended(&self, batches: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.ended.load(Relaxed) < batches {
            assert!(Instant::now() < deadline, "{} batches have ended", self.ended.load(Relaxed));
            std::thread::yield_now();
        }
    }
}

/// Told (n, m) it counts to n in responses of m elements, told (-n, m) it fails then.
struct CountingLane(Arc<Counted>);

impl Lane for CountingLane {
    fn execute(&self, _: u32, mut batch: LaneBatch) -> LaneFuture {
        let counted = Arc::clone(&self.0);
        let told: Vec<u8> = batch.inputs[0].pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let number = |at: usize| f32::from_le_bytes(told[at..at + 4].try_into().unwrap());
        let (count, columns) = (number(0), number(4));
        let parts = batch.parts.take().unwrap();
        Box::pin(async move {
            let mut value = 0f32;
            while value < count.abs() {
                value += 1.0;
                #[allow(clippy::cast_possible_truncation, reason = "a small whole number")]
                let columns = columns as i64;
                let data: Vec<u8> = (0..columns).flat_map(|_| value.to_le_bytes()).collect();
                let (name, shape) = ("y".into(), Shape::new(&[columns]));
                let part = Tensor { name, datatype: Datatype::Fp32, shape, data: data.into() };
                if parts.send(vec![part]).await.is_err() {
                    break;
                }
                counted.given.fetch_add(1, Relaxed);
            }
            counted.ended.fetch_add(1, Relaxed);
            if count < 0.0 {
                return Err(LaneFailure::Batch(Error::internal("the model can count no further")));
            }
            Ok(LaneOutcome { outputs: Vec::new(), execute_us: 1 })
        })
    }
}

fn identity(name: &str, datatype: Datatype) -> Arc<Model> {
    model(name, datatype, Placement::Inline(Arc::new(Identity)))
}

fn model(name: &str, datatype: Datatype, placement: Placement) -> Arc<Model> {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        datatype,
        shape: Shape::new(&[-1, -1]),
        optional: false,
    };
    let specification = ModelSpec {
        name: name.into(),
        version: "1".into(),
        platform: "identity".to_owned(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        max_batch_size: 32,
        labels: [("y".into(), vec!["tea".to_owned(), "espresso".to_owned()])].into(),
        description: "gives back what it gets".to_owned(),
        config_json: format!("{{\"name\":\"{name}\",\"max_batch_size\":32}}"),
        ..ModelSpec::default()
    };
    Model::new(specification, placement, Profile::default(), 1).0
}

/// A running server with the models `identity` (FP32, the default), `truth` (BOOL) and `words` (BYTES).
pub struct Server {
    pub addresses: Vec<String>,
    pub engine: Arc<Shared>,
    pub memory: Arc<MemoryBudget>,
    shutdown: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

pub const LIMIT: usize = 1 << 20;

impl Server {
    pub fn start() -> Self {
        Self::start_with(&["127.0.0.1:0".to_owned()], FrontendConfiguration::default())
    }

    pub fn start_with(listen: &[String], configuration: FrontendConfiguration) -> Self {
        let configuration = Arc::new(FrontendConfiguration { max_body_bytes: LIMIT, ..configuration });
        let memory = Arc::clone(&configuration.memory);
        let info = ServerInfo { name: "kingpole", version: "0.0.0", extensions: vec!["binary_tensor_data"] };
        let engine_configuration = EngineConfiguration {
            reactors: 1,
            queue_bytes: 1 << 24,
            default_model: Some("identity".into()),
            info,
        };
        // Nobody manages the repository: load and unload are refused.
        let (engine, _) = Shared::new(engine_configuration, Clock::new(Instant::now()));
        engine.publish(identity("identity", Datatype::Fp32));
        engine.publish(identity("truth", Datatype::Bool));
        engine.publish(identity("words", Datatype::Bytes));
        engine.set_ready(true);
        let listeners = Listeners::bind(listen).unwrap();
        let addresses = listeners.addresses();
        let (shutdown, down) = watch::channel(false);
        let (handle, incoming) = reactor();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (shared, stop) = (Arc::clone(&engine), down.clone());
        let reactor = std::thread::spawn(move || {
            runtime().block_on(run_reactor(Engine::new(shared, 0), incoming, configuration, stop));
        });
        let acceptor = std::thread::spawn(move || {
            runtime().block_on(listeners.accept(vec![handle], 1000, down)).unwrap();
        });
        Self { addresses, engine, memory, shutdown, threads: vec![reactor, acceptor] }
    }

    /// A server whose frontends may hold this much.
    pub fn start_within(limit_bytes: usize) -> Self {
        let memory = MemoryBudget::new(limit_bytes);
        Self::start_with(&["127.0.0.1:0".to_owned()], FrontendConfiguration { memory, ..Default::default() })
    }

    /// Serve the model `held`, whose requests wait until the returned pool is released.
    pub fn publish_held(&self) -> Held<'_> {
        let pool = Pool::new(1);
        self.engine.publish(model("held", Datatype::Fp32, Placement::Lanes(Arc::clone(&pool), 0)));
        Held { server: self, pool }
    }

    /// Serve the model `count`, which answers a request with any number of responses.
    pub fn publish_count(&self) -> Arc<Counted> {
        let (pool, counted) = (Pool::new(1), Arc::<Counted>::default());
        let tensor = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: Shape::new(shape),
            optional: false,
        };
        let specification = ModelSpec {
            name: "count".into(),
            version: "1".into(),
            inputs: vec![tensor("x", &[2])],
            outputs: vec![tensor("y", &[-1])],
            decoupled: true,
            ..ModelSpec::default()
        };
        pool.attach(0, Arc::new(CountingLane(Arc::clone(&counted))));
        let placement = Placement::Lanes(pool, 0);
        self.engine.publish(Model::new(specification, placement, Profile::default(), 1).0);
        counted
    }

    /// Wait until so many requests are admitted and not answered.
    pub fn expect_in_flight(&self, requests: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.engine.in_flight() != requests {
            assert!(Instant::now() < deadline, "{} are in flight", self.engine.in_flight());
            std::thread::yield_now();
        }
    }

    /// Serve the model `swell`, which answers each row with `SWOLLEN_BYTES`.
    pub fn publish_swell(&self) {
        self.engine.publish(model("swell", Datatype::Fp32, Placement::Inline(Arc::new(Swell))));
    }

    /// Serve the model `attentive`, which fails if its input changes under it.
    pub fn publish_attentive(&self) {
        self.engine.publish(model("attentive", Datatype::Fp32, Placement::Inline(Arc::new(Attentive))));
    }

    /// Wait until the frontends hold nothing any more.
    pub fn expect_nothing_held(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.memory.used_bytes() > 0 {
            assert!(Instant::now() < deadline, "{} bytes are held", self.memory.used_bytes());
            std::thread::yield_now();
        }
    }

    pub fn drain(&self) {
        self.shutdown.send_replace(true);
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addresses[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if !headers.iter().any(|(name, _)| *name == "transfer-encoding" || *name == "content-length") {
            request.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
        }
        request += "\r\n";
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Response::parse(&bytes)
    }

    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &str) -> Response {
        self.ask("POST", path, &[], body.as_bytes())
    }
}

/// A model whose requests wait.
pub struct Held<'a> {
    server: &'a Server,
    pool: Arc<Pool>,
}

impl Held<'_> {
    pub fn release(&self) {
        self.pool.attach(0, Arc::new(EchoLane));
        self.server.engine.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text of an Open Inference error.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}
