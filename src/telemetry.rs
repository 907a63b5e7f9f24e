//! Log lines on standard error: text for people, or one JSON object a line. `FOREWARN_LOG` filters them.

use tracing_subscriber::EnvFilter;

/// Starts logging; called once.
pub fn init(json: bool) {
    let filter = EnvFilter::try_from_env("FOREWARN_LOG").unwrap_or_else(|_| EnvFilter::new("info,datafusion=warn"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}
