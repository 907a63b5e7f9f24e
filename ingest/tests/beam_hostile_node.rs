//! Nodes that are mute, malformed or malicious cost their own connection; others go on being watched.

#[path = "beam_support/erlang.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod erlang;
#[path = "beam_support/watching.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use erl_dist::DistributionFlags;
use erl_dist::handshake::{HandshakeStatus, ServerSideHandshake};
use erl_dist::node::{Creation, LocalNode};
use erlang::Epmd;
use forewarn_ingest::beam::{BeamConfig, NodeConfig};
use forewarn_ingest::status::Health;
use forewarn_schemas::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;
use watching::{Seen, Watching, config};

/// What a fake node does once somebody connects.
#[derive(Debug, Clone)]
enum Manner {
    /// Accepts, and never says a word.
    MuteAtOnce,
    /// Sends this instead of a handshake.
    Instead(Vec<u8>),
    /// Shakes hands, then sends this, and reads on.
    After(Vec<u8>),
    /// Shakes hands, then sends this without end.
    Without(Vec<u8>),
    /// Says that our name is connected already.
    Taken,
    /// Shakes hands under another name.
    OtherName,
    /// Closes when it was sent our name.
    Closes,
}

/// A fake node and its epmd; counts connections. Ends with the test's runtime.
struct Fake {
    name: String,
    epmd_port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(alive: &str, manner: Manner) -> Self {
        let name = format!("{alive}@127.0.0.1");
        let own_name = name.clone();
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let epmd = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (node_port, epmd_port) = (node.local_addr().unwrap().port(), epmd.local_addr().unwrap().port());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = epmd.accept().await {
                let mut request = [0; 64];
                let _ = stream.read(&mut request).await;
                let [high, low] = node_port.to_be_bytes();
                let _ = stream.write_all(&[119, 0, high, low, 77, 0, 0, 6, 0, 5, 0, 4]).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = node.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (manner, own_name) = (manner.clone(), own_name.clone());
                // An error is the collector going away, as it should.
                tokio::spawn(async move { behave(stream, &own_name, manner).await });
            }
        });
        Self { name, epmd_port, accepted }
    }

    fn config(&self) -> NodeConfig {
        NodeConfig { name: self.name.clone(), cookie_file: None, cookie_env: None, epmd_port: Some(self.epmd_port) }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn shake(stream: TcpStream, name: &str, status: HandshakeStatus) -> Option<TcpStream> {
    let mut us = LocalNode::new(name.parse().unwrap(), Creation::new(1));
    us.flags = DistributionFlags::mandatory() | DistributionFlags::SPAWN;
    let mut handshake = ServerSideHandshake::new(stream.compat(), us, "COOKIE");
    handshake.execute_recv_name().await.ok()?;
    let (stream, _) = handshake.execute_rest(status).await.ok()?;
    Some(stream.into_inner())
}

async fn behave(mut stream: TcpStream, name: &str, manner: Manner) -> Option<()> {
    let mut sink = [0; 4096];
    match manner {
        Manner::MuteAtOnce => {}
        Manner::Instead(bytes) => stream.write_all(&bytes).await.ok()?,
        Manner::After(bytes) => {
            stream = shake(stream, name, HandshakeStatus::Ok).await?;
            stream.write_all(&bytes).await.ok()?;
        }
        Manner::Without(bytes) => {
            stream = shake(stream, name, HandshakeStatus::Ok).await?;
            loop {
                stream.write_all(&bytes).await.ok()?;
            }
        }
        Manner::Taken => {
            shake(stream, name, HandshakeStatus::Alive).await?;
            return None;
        }
        Manner::OtherName => stream = shake(stream, "prod@10.0.0.1", HandshakeStatus::Ok).await?,
        Manner::Closes => {
            let _ = stream.read(&mut sink).await;
            return None;
        }
    }
    while stream.read(&mut sink).await.ok()? > 0 {}
    Some(())
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// A message with the control term `term`.
fn control(term: &[u8]) -> Vec<u8> {
    frame(&[b"p\x83", term].concat())
}

struct Scene {
    watching: Watching,
    fake: Fake,
    _cookie: tempfile::TempDir,
}

async fn scene(manner: Manner) -> Scene {
    let fake = Fake::start("fake", manner).await;
    let cookie = tempfile::tempdir().unwrap();
    let path = cookie.path().join("c");
    std::fs::write(&path, "COOKIE").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let config = BeamConfig {
        discover_local: false,
        nodes: vec![fake.config()],
        call_timeout: Duration::from_millis(300),
        ..config(fake.epmd_port, path)
    };
    Scene { watching: Watching::start(config), fake, _cookie: cookie }
}

impl Scene {
    /// Waits until the node is down with an error that has `part`, and its state is written and stays written.
    async fn down_with(self, part: &str) {
        let first = self.watching.sample("beam_up", Timestamp::MIN, |s| s.value == 0.0).await;
        self.watching.sample("beam_up", first.ts, |s| s.value == 0.0).await;
        let error = self.watching.health(Health::Down).await.error;
        assert!(error.contains(part), "{error:?} has no {part:?}");
        assert!(self.watching.all().iter().all(|s| s.is("beam_up")), "nothing was made up");
        assert!(self.fake.accepted() >= 1);
        self.watching.stop().await;
    }
}

#[tokio::test]
async fn messages_that_are_longer_than_allowed() {
    // 4 GiB by the header alone, and 17 MiB of which the first bytes come.
    for header in [&[0xff, 0xff, 0xff, 0xff][..], &[0x01, 0x10, 0, 0, b'p', 0x83]] {
        scene(Manner::After(header.to_vec())).await.down_with("is longer than 16777216").await;
    }
}

#[tokio::test]
async fn malformed_terms() {
    let deep: Vec<u8> = [104, 1].into_iter().cycle().take(100_000).collect();
    let huge_tuple = [105, 0xff, 0xff, 0xff, 0xff, 97, 1];
    let bomb = [80, 0x7f, 0xff, 0xff, 0xff, 0x78, 0x9c, 1, 2, 3];
    for (term, part) in [
        (&b"\x00\x01"[..], "tag 0"),
        (&deep, "nested deeper"),
        (&huge_tuple, "cut short"),
        (&bomb, "tag 80"),
        (b"h\x00", "without an operation"),
        (b"j", "without an operation"),
    ] {
        scene(Manner::After(control(term))).await.down_with(part).await;
    }
    scene(Manner::After(frame(b"\x83Dfragment"))).await.down_with("unknown form").await;
}

#[tokio::test]
async fn mute_nodes() {
    // Mute from the start is cut by the deadline of the handshake; until then it is not up, and nothing is written.
    let scene_mute = scene(Manner::MuteAtOnce).await;
    let scene_after = scene(Manner::After(Vec::new())).await;
    scene_after.down_with("no answer in time").await;
    scene_mute.down_with("no answer within 7s").await;
}

#[tokio::test]
async fn half_a_message_and_silence() {
    scene(Manner::After(vec![0, 0, 0, 100, b'p'])).await.down_with("no answer in time").await;
}

#[tokio::test]
async fn no_erlang_at_all() {
    scene(Manner::Instead(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await.down_with("").await;
    scene(Manner::Instead(vec![0xff; 70_000])).await.down_with("handshake").await;
    scene(Manner::Closes).await.down_with("handshake").await;
}

#[tokio::test]
async fn links_exits_and_sends_at_us_are_ignored_and_a_flood_of_them_ends_it() {
    // LINK, EXIT, EXIT2, SEND and REG_SEND to a process of ours that is not there.
    let pid = b"X\x77\x06a@b.cd\0\0\0\x01\0\0\0\0\0\0\0\x01";
    let mut some = Vec::new();
    for operation in [1u8, 3, 8, 2, 6] {
        let mut term = vec![104, 4, 97, operation];
        term.extend(pid.iter().chain(pid).chain(b"\x77\x04kill"));
        some.extend(control(&term));
    }
    scene(Manner::After(some.clone())).await.down_with("no answer in time").await;
    scene(Manner::Without(some)).await.down_with("nobody asked for").await;
}

#[tokio::test]
async fn a_taken_name_is_left_to_whoever_has_it() {
    scene(Manner::Taken).await.down_with("already has a connection from forewarn@").await;
}

#[tokio::test]
async fn a_node_cannot_speak_for_another() {
    scene(Manner::OtherName).await.down_with("calls itself \"prod@10.0.0.1\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_hostile_neighbours_do_not_harm_a_node() {
    let manners = [
        Manner::MuteAtOnce,
        Manner::After(Vec::new()),
        Manner::After(vec![0xff; 4]),
        Manner::After(vec![0, 0, 0, 100, b'p']),
        Manner::Without(control(b"h\x01a\x05")),
    ];
    let mut fakes = Vec::new();
    for i in 0..30 {
        fakes.push(Fake::start(&format!("fake{i}"), manners[i % manners.len()].clone()).await);
    }
    let epmd = Epmd::start();
    let _well = epmd.node(&["-sname", "well"]);
    let config = BeamConfig {
        nodes: fakes.iter().map(Fake::config).collect(),
        call_timeout: Duration::from_millis(500),
        ..config(epmd.port, epmd.cookie_file("c", "COOKIE"))
    };
    let watching = Watching::start(config);
    let of_well = |s: &Seen| s.is("beam_up") && s.labels.get("family") == Some("well");
    watching.until("polls", |seen| (seen.iter().filter(|s| of_well(s)).count() >= 50).then_some(())).await;
    // Those that are mute from the start are still in the deadline of their handshake.
    for fake in &fakes {
        assert!(fake.accepted() >= 1, "{}", fake.name);
    }
    for seen in watching.all().iter().filter(|s| s.is("beam_up")) {
        assert_eq!(seen.value, f64::from(u8::from(of_well(seen))), "{}", seen.labels);
    }
    let fake_down = watching.all().iter().filter(|s| s.is("beam_up") && s.value == 0.0).count();
    assert!(fake_down >= 24, "{fake_down}");
    watching.stop().await;
}
