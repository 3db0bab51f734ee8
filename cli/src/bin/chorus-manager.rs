//! `chorus-manager`: the same as `chorus manager`, for hosts that run nothing else.

use std::process::ExitCode;

use chorus_cli::app;
use chorus_runtime::process::guard;

fn main() -> ExitCode {
    // A guard watches over one child of ours and must start nothing else.
    if let Some(code) = guard::run_if_guard(std::env::args_os()) {
        return code;
    }
    app::run(app::as_command("manager", std::env::args_os()), std::env::vars_os())
}
