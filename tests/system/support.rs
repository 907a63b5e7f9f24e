//! Starts and stops what the tests talk to: the binary under test, a webhook receiver, Erlang nodes. Everything listens
//! on a free loopback port, keeps its files in a directory of its own and is stopped by pid.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use serde_json::Value;

/// How long anything that is waited for may take, unless a test says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` returns something; other processes offer nothing to wait on.
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

/// A process that ends with the test.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    /// Sends a signal by number.
    pub(crate) fn signal(&self, signal: i32) {
        let status = Command::new("kill").args([format!("-{signal}"), self.0.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        eventually("the process ends", patience, || self.0.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary under test.
#[derive(Debug)]
pub(crate) struct Forewarn {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    pub(crate) process: Process,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Forewarn {
    /// Starts it in `dir` with a configuration file of this text, and waits until it is ready.
    pub(crate) fn start(dir: &Path, config: &str) -> Self {
        Self::start_with(dir, config, &[])
    }

    /// As [`Forewarn::start`], with further environment variables.
    pub(crate) fn start_with(dir: &Path, config: &str, env: &[(&str, &str)]) -> Self {
        let mut it = Self::start_without_waiting(dir, config, env);
        eventually("forewarn is ready", PATIENCE, || {
            if let Some(status) = it.process.0.try_wait().expect("a child can be waited for") {
                panic!("forewarn ended with {status}:\n{}", it.read("stderr"));
            }
            (it.get("/-/ready").0 == 200).then_some(())
        });
        it
    }

    /// Starts it and returns at once.
    pub(crate) fn start_without_waiting(dir: &Path, config: &str, env: &[(&str, &str)]) -> Self {
        let port = free_port();
        std::fs::write(dir.join("forewarn.yaml"), config).expect("the configuration is written");
        let out = |name: &str| {
            let file =
                std::fs::OpenOptions::new().create(true).append(true).open(dir.join(name)).expect("an output file");
            Stdio::from(file)
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_forewarn"));
        command
            .current_dir(dir)
            .args(["--config", "forewarn.yaml", "--listen", &format!("127.0.0.1:{port}")])
            .envs(env.iter().copied())
            .stdout(out("stdout"))
            .stderr(out("stderr"));
        let process = Process::spawn(&mut command);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { dir: dir.into(), port, process, client: reqwest::Client::new(), runtime }
    }

    /// Reads one of its files.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns status and body; 0 when it does not answer.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.send(self.client.get(self.url(path)))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.send(self.client.post(self.url(path)).body(body.to_owned()))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        self.runtime.block_on(async {
            match request.timeout(Duration::from_secs(10)).send().await {
                Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
                Err(_) => (0, String::new()),
            }
        })
    }

    /// Returns `data` of an enveloped answer.
    pub(crate) fn data(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        let mut v: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!(v["status"], "success", "{path}: {body}");
        v["data"].take()
    }

    /// Runs SQL and returns the rows.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let (status, body) = self.post("/api/v1/sql", query);
        assert_eq!(status, 200, "{query}: {body}");
        let v: Value = serde_json::from_str(&body).expect("the answer is JSON");
        assert_eq!(v["status"], "success", "{query}: {body}");
        v["data"]["rows"].as_array().expect("rows").clone()
    }

    /// Returns the forecast of one resource, if there is one.
    pub(crate) fn forecast(&self, node: &str, resource: &str, object: &str) -> Option<Value> {
        let all = self.data(&format!("/api/v1/forecasts?node={node}&resource={resource}"));
        all.as_array()?.iter().find(|f| f["object"] == object).cloned()
    }

    /// Stops it as an operator does.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.process.signal(15);
        self.process.wait(PATIENCE)
    }

    /// Kills it as a power cut does, the machine's memory excepted.
    pub(crate) fn kill(mut self) {
        self.process.signal(9);
        self.process.wait(PATIENCE);
    }
}

/// A webhook receiver that remembers what it got.
#[derive(Debug)]
pub(crate) struct Hook {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Value>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Hook {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let got = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let take = |State(got): State<Arc<Mutex<Vec<Value>>>>, body: String| async move {
            got.lock().expect("no test panics with it").push(serde_json::from_str(&body).expect("JSON"));
        };
        let routes = axum::Router::new().route("/hook", post(take)).with_state(got.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self { url, got, _runtime: runtime }
    }

    /// Returns the payloads that hold an alert of this resource, oldest first.
    pub(crate) fn of(&self, node: &str, resource: &str) -> Vec<Value> {
        let got = self.got.lock().expect("no test panics with it");
        let is = |a: &Value| a["labels"]["node"] == node && a["labels"]["resource"] == resource;
        got.iter().filter(|p| p["alerts"].as_array().is_some_and(|a| a.iter().any(is))).cloned().collect()
    }
}

/// An epmd of the test's own, and the home directory with the cookie of its nodes.
#[derive(Debug)]
pub(crate) struct Erlang {
    pub(crate) epmd_port: String,
    pub(crate) home: PathBuf,
    _epmd: Process,
}

impl Erlang {
    pub(crate) fn start(home: &Path) -> Self {
        let epmd_port = free_port().to_string();
        let cookie = home.join(".erlang.cookie");
        std::fs::write(&cookie, "forewarn-test-cookie").expect("the cookie is written");
        let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(&cookie, only_owner).expect("its mode is set");
        let epmd = Process::spawn(Command::new("epmd").args(["-port", &epmd_port, "-address", "127.0.0.1"]));
        eventually("epmd answers", PATIENCE, || std::net::TcpStream::connect(format!("127.0.0.1:{epmd_port}")).ok());
        Self { epmd_port, home: home.into(), _epmd: epmd }
    }

    /// Environment for forewarn and for nodes.
    pub(crate) fn env(&self) -> [(&str, &str); 2] {
        [("ERL_EPMD_PORT", &self.epmd_port), ("HOME", self.home.to_str().expect("a path in UTF-8"))]
    }

    /// Starts a node `name@127.0.0.1` that evaluates `code`; `cgroup` is a directory of a cgroup to be put into.
    pub(crate) fn node(&self, name: &str, flags: &[&str], code: &str, cgroup: Option<&Path>) -> Process {
        let join = cgroup.map(|c| format!("echo $$ > {}/cgroup.procs; ", c.display())).unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{join}exec erl \"$@\""))
            .arg("sh")
            .args(["-noinput", "-start_epmd", "false", "-name", &format!("{name}@127.0.0.1")])
            .args(flags)
            .args(["-eval", code])
            .envs(self.env())
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Process::spawn(&mut command)
    }
}

/// Writes to standard error past the test harness, for progress on long tests.
pub(crate) fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "    {line}");
}
