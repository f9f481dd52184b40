//! The `vecdis` program: serves, or does what a subcommand says.

use std::process::ExitCode;

use vecdis::config::Config;
use vecdis::vector::kernel::Kernel;
use vecdis::{cli, heap, logging, server};

fn main() -> ExitCode {
    heap::tune();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(code) = cli::run(&args) {
        return code;
    }
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vecdis: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(args.into_iter())?;
    Kernel::select(&config.search_kernel)?;
    logging::init(&config)?;
    Ok(server::run(config)?)
}
