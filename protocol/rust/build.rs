//! Compiles the protobuf schemas with protox, so that building needs no `protoc`.

#[cfg(feature = "grpc")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    schemas::compile()
}

#[cfg(not(feature = "grpc"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}

#[cfg(feature = "grpc")]
mod schemas {
    use std::env;
    use std::error::Error;
    use std::fs;
    use std::path::PathBuf;

    use prost_build::Config;

    const SCHEMAS: [&str; 7] = [
        "open_inference.proto",
        "health.proto",
        "reflection.proto",
        "reflection_v1alpha.proto",
        "kingpole.proto",
        "tensorflow.proto",
        "tensorflow_serving.proto",
    ];

    pub(super) fn compile() -> Result<(), Box<dyn Error>> {
        let schema = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("schema");
        for name in SCHEMAS {
            println!("cargo:rerun-if-changed={}", schema.join(name).display());
        }
        let descriptors = protox::compile(SCHEMAS, [&schema])?;
        let out = PathBuf::from(env::var("OUT_DIR")?);
        fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
        // Maps in key order: the same message always gives the same bytes.
        Config::new().btree_map(["."]).bytes(["."]).compile_fds(descriptors)?;
        Ok(())
    }
}
