//! Against the real server, if `KINGPOLE` says its command: what a script cannot show.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kingpole_client::{Client, Code, Datatype, Request, Tensor};

const MODEL: &str = "backend: identity
inputs:
  - {name: x, datatype: FP32, shape: [-1, -1]}
outputs:
  - {name: x, datatype: FP32, shape: [-1, -1]}
";

/// A server with one model, `echo`; `None`, with the reason, where there is none.
struct Server {
    process: Child,
    folder: PathBuf,
    authority: String,
}

impl Server {
    fn start(test: &str) -> Option<Self> {
        let Some(command) = std::env::var_os("KINGPOLE") else {
            eprintln!("skipped: KINGPOLE does not say how to start a server");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("kingpole-{test}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("models/echo/1")).unwrap();
        std::fs::write(folder.join("models/echo/model.yaml"), MODEL).unwrap();
        let mut process = Command::new(command)
            .arg("serve")
            .arg(folder.join("models"))
            .args(["--listen", "127.0.0.1:0", "--management", "off", "--listen"])
            .arg(format!("unix:{}", folder.join("s").display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut authority, mut said) = (None, String::new());
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("127.0.0.1:")
                && authority.is_none()
            {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                authority = Some(format!("127.0.0.1:{port}"));
            }
            said.push_str(&line);
            said.push('\n');
            if line.starts_with("ready,") {
                // What else it says has to go somewhere.
                std::thread::spawn(move || lines.for_each(drop));
                let authority = authority.unwrap_or_else(|| panic!("it said no port:\n{said}"));
                return Some(Self { process, folder, authority });
            }
        }
        let status = process.wait();
        panic!("it did not start, {status:?}:\n{said}");
    }

    fn urls(&self) -> [String; 4] {
        let [http, grpc, frame] =
            ["http", "grpc", "frame"].map(|scheme| format!("{scheme}://{}", self.authority));
        [http, grpc, frame, format!("unix:{}", self.socket().display())]
    }

    fn socket(&self) -> PathBuf {
        Path::new(&self.folder).join("s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ask(elements: usize) -> Request {
    let shape = [1, i64::try_from(elements).unwrap()];
    Request::new("echo").input(Tensor::new("x", &shape, vec![1.5f32; elements]).unwrap())
}

#[tokio::test]
async fn responses_are_views_that_are_aligned_over_every_transport() {
    let Some(server) = Server::start("views") else { return };
    for url in server.urls() {
        let client = Client::new(&url).unwrap();
        for elements in [1, 5000, 1_000_000] {
            let response = client.infer(ask(elements)).await.unwrap();
            let x = response.output("x").unwrap();
            let read = x.elements::<f32>().unwrap();
            assert!(matches!(read, std::borrow::Cow::Borrowed(_)), "{url}: {elements} elements were copied");
            assert_eq!(read.len(), elements);
        }
    }
}

#[tokio::test]
async fn several_ask_at_once_and_one_that_is_wrong_harms_no_other() {
    let Some(server) = Server::start("several") else { return };
    for url in server.urls() {
        let client = Client::new(&url).unwrap();
        let wrong = Request::new("echo").input(Tensor::new("x", &[1, 1], vec![1u8]).unwrap());
        let (one, refused, other) =
            tokio::join!(client.infer(ask(3)), client.infer(wrong), client.infer(ask(4)));
        assert_eq!((one.unwrap().outputs[0].shape[1], other.unwrap().outputs[0].shape[1]), (3, 4));
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{url}");
        assert!(client.ready().await.unwrap() && client.model_ready("echo", None).await.unwrap());
        assert_eq!(client.metadata("echo", None).await.unwrap().inputs[0].datatype, Datatype::Fp32);
    }
}

#[tokio::test]
async fn a_request_of_names_longer_than_a_header_is_refused_here() {
    let Some(server) = Server::start("names") else { return };
    for url in server.urls() {
        let client = Client::new(&url).unwrap();
        let error = client.infer(Request::new("m".repeat(300_000))).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{url}: {error}");
        assert!(client.infer(ask(1)).await.is_ok());
    }
}

#[cfg(feature = "blocking")]
#[test]
fn the_blocking_client_asks_the_same() {
    use kingpole_client::blocking;

    let Some(server) = Server::start("blocking") else { return };
    for url in server.urls() {
        let client =
            blocking::Client::build(Client::builder(&url).timeout(std::time::Duration::from_secs(5)))
                .unwrap();
        assert_eq!(client.infer(ask(2)).unwrap().outputs[0].shape[1], 2);
        let many: Vec<_> = client.infer_many((1..20).map(ask), 4).map(|response| response.unwrap()).collect();
        assert!(many.iter().zip(1..).all(|(response, size)| response.outputs[0].shape[1] == size));
        assert_eq!(client.stream(ask(7)).unwrap().count(), 1);
        assert!(client.live().unwrap() && client.ready().unwrap());
        assert_eq!(client.server_info().unwrap().name, "kingpole");
    }
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn the_client_is_a_service() {
    use tower_service::Service;

    let Some(server) = Server::start("tower") else { return };
    let mut client =
        Client::builder(&server.urls()[0]).timeout(std::time::Duration::from_secs(5)).build().unwrap();
    std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
    assert_eq!(client.call(ask(2)).await.unwrap().outputs[0].shape[1], 2);
}
