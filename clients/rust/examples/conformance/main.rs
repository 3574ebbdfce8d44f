//! The conformance program of this client: `conformance CASE URL [EXTRA]`; protocol/conformance/README.md says what
//! each case must show.

mod answers;
mod encode;
mod expect;
mod hostile;
mod many;
mod relay;
mod secrets;
mod shared_memory;
mod values;
mod waiting;

use std::process::ExitCode;

use kingpole_client::Client;

use crate::expect::{Failure, Outcome};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            println!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Outcome {
    let (case, url, extra) = match *arguments {
        ["transports"] => {
            println!("http grpc frame unix");
            return Ok(());
        }
        ["encode", vectors, out] => return encode::encode(vectors.as_ref(), out.as_ref()),
        [case, url] => (case, url, ""),
        [case, url, extra] => (case, url, extra),
        _ => return Err(Failure("usage: conformance CASE URL [EXTRA]".to_owned())),
    };
    let client = Client::new(url)?;
    match case {
        "server" => answers::server(&client).await,
        "datatypes" => values::datatypes(&client).await,
        "shapes" => values::shapes(&client).await,
        "parameters" => answers::parameters(&client).await,
        "errors" => {
            answers::refused(&client).await?;
            answers::failed(&client).await
        }
        "open-inference" => {
            values::datatypes(&client).await?;
            values::shapes(&client).await?;
            answers::known(&client).await?;
            answers::refused(&client).await
        }
        "deadline" => waiting::deadline(&client).await,
        "cancel" => waiting::cancel(&client, extra).await,
        "killed" => waiting::killed(&client).await,
        "stream" => many::stream(&client, extra).await,
        "sequence" => many::sequence(&client).await,
        "pipeline" => many::pipeline(&client).await,
        "large" => many::large(&client).await,
        "hostile" => hostile::hostile(url).await,
        "tls" => secrets::tls(url, extra).await,
        "token" => secrets::token(url).await,
        "shared-memory" => shared_memory::shared_memory(url).await,
        _ => Err(Failure(format!("no case '{case}'"))),
    }
}
