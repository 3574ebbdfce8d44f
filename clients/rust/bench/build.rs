//! Generates the plain stubs of Open Inference.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "../../../protocol/schema";
    println!("cargo:rerun-if-changed={schema}/open_inference.proto");
    let descriptors = protox::compile(["open_inference.proto"], [schema])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
