//! Real Erlang nodes for the tests: an epmd of their own, a home of their own, ended by process id.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a node may take to answer a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An epmd of the test's own.
pub(crate) struct Epmd {
    child: Child,
    pub(crate) port: u16,
    home: tempfile::TempDir,
}

impl Epmd {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let child = Command::new("epmd")
            .args(["-port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let epmd = Self { child, port, home: tempfile::tempdir().unwrap() };
        let begun = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "epmd does not listen");
            std::thread::yield_now();
        }
        epmd
    }

    /// Writes a cookie file of this name and returns its path.
    pub(crate) fn cookie_file(&self, name: &str, cookie: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.home.path().join(name);
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path).unwrap();
        file.write_all(cookie.as_bytes()).unwrap();
        path
    }

    /// Starts a node with more arguments (`-name a@127.0.0.1`, `+P 4096`) and the cookie `COOKIE`.
    pub(crate) fn node(&self, arguments: &[&str]) -> ErlNode {
        self.node_of(None, arguments)
    }

    /// As [`Epmd::node`], under another uid, which only root can.
    pub(crate) fn node_of(&self, uid: Option<u32>, arguments: &[&str]) -> ErlNode {
        use std::os::unix::process::CommandExt;
        // Evaluates each line of its input and prints the value on one line; ends with its input.
        let loop_of_lines = r#"
            Read = fun Again() ->
                case io:get_line("") of
                    eof -> halt();
                    Line ->
                        {ok, Tokens, _} = erl_scan:string(Line),
                        {ok, Exprs} = erl_parse:parse_exprs(Tokens),
                        {value, Value, _} = erl_eval:exprs(Exprs, []),
                        io:format("~0p~n", [Value]),
                        Again()
                end
            end, Read()."#;
        // Erlang ignores the option when it is there twice.
        let cookie: &[&str] = if arguments.contains(&"-setcookie") { &[] } else { &["-setcookie", "COOKIE"] };
        let mut erl = Command::new("erl");
        if let Some(uid) = uid {
            erl.uid(uid);
        }
        let mut child = erl
            .args(["-noshell", "-start_epmd", "false"])
            .args(arguments)
            .args(cookie)
            .args(["-eval", loop_of_lines])
            .env("ERL_EPMD_PORT", self.port.to_string())
            .env("HOME", self.home.path())
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = lines(child.stdout.take().unwrap());
        let mut node = ErlNode { child, input, output };
        // The first answer says that it runs and is registered.
        node.eval("node()");
        node
    }
}

fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Drop for Epmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// A real node, killed when dropped.
pub(crate) struct ErlNode {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl ErlNode {
    /// Evaluates expressions, on one line without the last full stop, and returns the value as text.
    pub(crate) fn eval(&mut self, expressions: &str) -> String {
        writeln!(self.input, "{expressions}.").unwrap();
        self.output.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no answer to {expressions:?}: {e}"))
    }

    /// Evaluates to a number.
    pub(crate) fn number(&mut self, expressions: &str) -> f64 {
        let text = self.eval(expressions);
        text.parse().unwrap_or_else(|_| panic!("{expressions} is {text:?}"))
    }

    /// What it printed without being asked, so far.
    pub(crate) fn printed(&self) -> Vec<String> {
        self.output.try_iter().collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ErlNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
