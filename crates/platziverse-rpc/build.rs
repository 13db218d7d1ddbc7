//! Makes the Rust code of the protos.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 2] = ["mom/v1/mom.proto", "chasqui/chasqui.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    #[expect(clippy::disallowed_methods, reason = "so cargo tells a build script where to write")]
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.default_package_filename("chasqui").bytes(["."]).btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
