//! The first lines of the output: what is watched, where the page is, what could not be done and how to mend that.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forewarn_ingest::log::Recovery;
use forewarn_ingest::status::{Board, Health, Notice};
use forewarn_schemas::units::format_duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;

/// The collectors get this long to find what there is before the first lines are written.
const FIRST_LOOK: Duration = Duration::from_millis(1_500);

/// Returns an address that a browser on this machine reaches.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], listen.port())),
        ip if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], listen.port())),
        _ => listen,
    }
}

/// Says what the log found when it was opened.
pub fn recovered(recovery: &Recovery, board: &Board) {
    if recovery.cut_bytes > 0 {
        warn!(
            bytes = recovery.cut_bytes,
            "the log's damaged tail was cut: a write that had not been acknowledged, most likely"
        );
    }
    for (partition, gap) in &recovery.gaps {
        warn!(
            partition = partition.0,
            from = gap.start.0,
            to = gap.end.0,
            "the log is damaged; these records are lost"
        );
        let message = format!(
            "records {} to {} of partition {partition} are lost: the log was damaged on disk",
            gap.start, gap.end
        );
        board.notice(
            "log",
            &message,
            "check the disk (dmesg, smartctl); the damaged bytes are kept in the quarantine folder of the log",
        );
    }
}

/// Writes the first lines once the collectors have looked around, and later notices as log lines.
pub async fn greet(config: Config, url: String, board: Arc<Board>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(FIRST_LOOK) => {}
    }
    print!("{}", text(&config, &url, &board));
    let mut said: BTreeSet<Notice> = board.notices().into_iter().collect();
    let mut look = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let now: BTreeSet<Notice> = board.notices().into_iter().collect();
        for n in now.difference(&said) {
            warn!(source = n.source, mend = n.mend, "{}", n.message);
        }
        said = now;
    }
}

fn text(config: &Config, url: &str, board: &Board) -> String {
    let mut out = format!("forewarn {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |head: &str, text: String| out.push_str(&format!("  {head:<10} {text}\n"));
    let targets = board.targets();
    let watched: Vec<_> = targets.iter().filter(|t| t.health == Health::Up).collect();
    if watched.is_empty() {
        line("watching", "nothing yet".into());
    }
    for t in &watched {
        let every =
            if t.collector == "beam" { config.collectors.beam.interval } else { config.collectors.host.interval };
        line("watching", format!("{} ({}) every {}", t.node, t.collector, format_duration(every)));
    }
    if config.collectors.beam.enabled && !watched.iter().any(|t| t.collector == "beam") {
        line("looking", "for BEAM nodes of this user at the local epmd; they are joined when they start".into());
    }
    line("page", format!("{url}/"));
    line("metrics", format!("{url}/metrics"));
    line("data", format!("{}, kept {}", config.data.display(), format_duration(config.store.retention)));
    for n in board.notices() {
        line("could not", format!("{}; {}", n.message, n.mend));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use forewarn_ingest::status::Target;
    use forewarn_schemas::Timestamp;

    #[test]
    fn says_what_is_watched_and_what_could_not_be_done() {
        let board = Board::default();
        board.set(Target {
            node: "web-1".into(),
            family: "host".into(),
            collector: "host".into(),
            configured: false,
            health: Health::Up,
            since: Timestamp::default(),
            last_poll: None,
            error: String::new(),
            facts: Default::default(),
        });
        board.notice("beam", "a@web-1 refused the cookie", "set collectors.beam.cookie_file");
        let text = text(&Config::default(), "http://127.0.0.1:9797", &board);
        for part in
            ["watching   web-1 (host) every 10s", "page       http://127.0.0.1:9797/", "could not  a@web-1 refused"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_browser_cannot_open_the_unspecified_address() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
