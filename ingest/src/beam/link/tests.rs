use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::super::call::{Statistics, SystemInfo};
use super::super::term::{Decoder, pid, reference};
use super::*;

/// What a scripted node saw: the operation of each message, and the calls by function.
#[derive(Debug, Default)]
pub(in super::super) struct Saw {
    operations: Vec<i64>,
    pub(in super::super) calls: Vec<String>,
}

/// A node that answers each call as `script` says: `Some` with the value, `None` never. The function is written
/// `module:function`, the arguments follow. Ends when the connection does.
pub(in super::super) async fn scripted(
    script: impl Fn(&str, &[Term]) -> Option<Term> + Send + 'static,
    call_timeout: Duration,
) -> (Driver, Client, Arc<Mutex<Saw>>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    let saw = Arc::new(Mutex::new(Saw::default()));
    let node_saw = Arc::clone(&saw);
    let node = tokio::spawn(async move {
        let mut worker = 0;
        while let Ok(length) = theirs.read_u32().await {
            let mut body = vec![0; length as usize];
            theirs.read_exact(&mut body).await.unwrap();
            let Some((_, terms)) = body.split_first() else { continue };
            let mut decoder = Decoder::new(terms);
            let Term::Tuple(control) = decoder.versioned().unwrap() else { panic!("no control") };
            let operation = control[0].int().unwrap();
            node_saw.lock().unwrap().operations.push(operation);
            if operation != 29 {
                continue;
            }
            let Term::List(arguments) = decoder.versioned().unwrap() else { panic!("no arguments") };
            let function = format!("{}:{}", arguments[1].as_atom().unwrap(), arguments[2].as_atom().unwrap());
            node_saw.lock().unwrap().calls.push(function.clone());
            worker += 1;
            let (id, us, worker) = (control[1].clone(), control[2].clone(), pid("n@h", worker, 0, 1));
            let mut say = vec![vec![Term::Int(31), id.clone(), us.clone(), Term::Int(2), worker.clone()]];
            if let Some(value) = script(&function, arguments[3].list().unwrap_or_default()) {
                let reason = Term::Tuple(vec![id.clone(), Term::atom("return"), value]);
                say.push(vec![Term::Int(21), worker, us, id, reason]);
            }
            for control in say {
                let mut bytes = vec![b'p', 131];
                Term::Tuple(control).encode(&mut bytes);
                theirs.write_u32(bytes.len() as u32).await.unwrap();
                theirs.write_all(&bytes).await.unwrap();
            }
        }
    });
    let (driver, client) = link(ours, Wire::new("forewarn@vm", 7), 1 << 20, call_timeout);
    (driver, client, saw, node)
}

#[tokio::test]
async fn calls_share_the_connection_and_a_late_one_is_abandoned_on_the_node() {
    let script = |function: &str, arguments: &[Term]| match (function, arguments) {
        ("erlang:memory", _) => None,
        (_, [item]) => Some(item.clone()),
        _ => Some(Term::Int(1)),
    };
    let (driver, client, saw, node) = scripted(script, Duration::from_millis(300)).await;
    let questions = async {
        let many = (0..200).map(|i| {
            let even = Call::SystemInfo(SystemInfo::AtomCount);
            client.call(if i % 2 == 0 { even } else { Call::Statistics(Statistics::Io) })
        });
        let (late, answers) = tokio::join!(client.call(Call::Memory), futures::future::join_all(many));
        assert_eq!(late, Err(CallError::Late));
        for (i, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Ok(Term::atom(if i % 2 == 0 { "atom_count" } else { "io" })));
        }
        drop(client);
    };
    let (why, ()) = tokio::join!(driver.run(), questions);
    assert!(matches!(why, LinkError::Closed));
    node.await.unwrap();
    let operations = &saw.lock().unwrap().operations;
    assert_eq!(operations.iter().filter(|o| **o == 29).count(), 201);
    assert_eq!(operations.iter().filter(|o| **o != 29).collect::<Vec<_>>(), [&20, &8], "demonitored, then killed");
}

#[tokio::test]
async fn a_dropped_client_waits_for_what_is_under_way() {
    // Nobody waits for the answer any more, but the connection is closed only after it has come.
    let (driver, client, saw, node) = scripted(|_, _| Some(Term::Int(1)), Duration::from_secs(9)).await;
    let mut driving = std::pin::pin!(driver.run());
    tokio::select! {
        biased;
        _ = client.call(Call::Memory) => panic!("nothing was sent yet"),
        why = &mut driving => panic!("{why}"),
        () = tokio::task::yield_now() => {}
    }
    drop(client);
    assert!(matches!(driving.await, LinkError::Closed));
    node.await.unwrap();
    assert!(saw.lock().unwrap().operations.iter().all(|o| *o == 29), "a call that was answered is not killed");
}

#[test]
fn outcomes() {
    let tagged = |class: &str, value| {
        outcome(Term::Tuple(vec![reference("n@h", 1, [1, 2, 3]), Term::atom(class), value, Term::List(vec![])]))
    };
    assert_eq!(tagged("return", Term::Int(5)), Ok(Term::Int(5)));
    assert_eq!(tagged("error", Term::atom("badarg")), Err(CallError::Failed("error badarg".into())));
    let nested = Term::Tuple(vec![Term::atom("badmatch"), Term::Int(1)]);
    assert_eq!(tagged("error", nested), Err(CallError::Failed("error badmatch".into())));
    assert_eq!(outcome(Term::atom("noconnection")), Err(CallError::Failed("noconnection".into())));
    assert_eq!(outcome(Term::Tuple(vec![])), Err(CallError::Failed("unknown reason".into())));
    assert_eq!(outcome(Term::Int(1)), Err(CallError::Failed("unknown reason".into())));
}
