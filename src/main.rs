//! The binary: everything is in the library; here errors become exit codes (0 done, 1 failed, 2 misused).

use std::process::ExitCode;

fn main() -> ExitCode {
    match peer::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}
