//! Chains of real connections on loopback, in one process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::forward::Forward;
use super::hop::{Hop, Setup};
use super::tls::Identity;
use super::*;
use crate::bundle::manifest::{Chunk, Encoding};
use crate::digest::Blake3;

/// Manifest entries for these stored bytes.
pub fn chunks(contents: &[Vec<u8>]) -> Vec<Chunk> {
    let chunk = |bytes: &Vec<u8>| Chunk {
        blob: Sha256::of(bytes),
        stored: u32::try_from(bytes.len()).unwrap(),
        raw: u32::try_from(bytes.len()).unwrap(),
        blake3: Blake3::of(bytes),
        encoding: Encoding::Stored,
        volume: 1,
        offset: 0,
    };
    contents.iter().map(chunk).collect()
}

struct Memory {
    names: Arc<[Chunk]>,
    kept: Mutex<BTreeMap<u32, Vec<u8>>>,
}

impl Store for Memory {
    fn put(&self, chunk: u32, stored: &[u8]) -> Result<Put> {
        if Sha256::of(stored) != self.names[chunk as usize].blob {
            return Ok(Put::Changed);
        }
        // The first ones are late.
        thread::sleep(Duration::from_millis(3 - u64::from(chunk % 3)));
        self.kept.lock().unwrap().insert(chunk, stored.to_vec());
        Ok(Put::Kept)
    }
}

struct Full;

impl Store for Full {
    fn put(&self, _chunk: u32, _stored: &[u8]) -> Result<Put> {
        Err(Error::NoSpace("/data is full".into()))
    }
}

struct TestNode {
    hop: Option<Hop>,
    neighbour: Neighbour,
    store: Arc<Memory>,
    events: Receiver<RelayEvent>,
}

/// An origin and nodes, joined in order.
struct TestChain {
    contents: Vec<Vec<u8>>,
    forward: Forward,
    origin_events: Receiver<RelayEvent>,
    nodes: Vec<TestNode>,
}

fn hear() -> (Listener, Receiver<RelayEvent>) {
    let (sender, events) = mpsc::channel();
    let listener: Listener = Arc::new(move |event| {
        let _ = sender.send(event);
    });
    (listener, events)
}

/// Three megabytes in chunks of uneven sizes.
fn contents() -> Vec<Vec<u8>> {
    (0..30u8)
        .map(|number| vec![number; 3777 * (usize::from(number) + 1) + PIECE / 3])
        .collect()
}

impl TestChain {
    fn new(count: usize) -> Self {
        let contents = contents();
        let identities: Vec<Arc<Identity>> = (0..=count)
            .map(|_| Arc::new(Identity::generate().unwrap()))
            .collect();
        let feeders: Vec<Sha256> = identities
            .iter()
            .map(|identity| identity.fingerprint())
            .collect();
        let shared: Arc<[Chunk]> = chunks(&contents).into();
        let nodes: Vec<TestNode> = identities[1..]
            .iter()
            .map(|identity| {
                let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = port.local_addr().unwrap();
                let store = Arc::new(Memory {
                    names: Arc::clone(&shared),
                    kept: Mutex::default(),
                });
                let (listener, events) = hear();
                let setup = Setup {
                    identity: Arc::clone(identity),
                    port,
                    feeders: feeders.clone(),
                    chunks: Arc::clone(&shared),
                    store: Arc::clone(&store) as Arc<dyn Store>,
                    listener,
                };
                let hop = Some(Hop::start(setup).unwrap());
                let neighbour = Neighbour {
                    address,
                    fingerprint: identity.fingerprint(),
                };
                TestNode {
                    hop,
                    neighbour,
                    store,
                    events,
                }
            })
            .collect();
        let (listener, origin_events) = hear();
        let forward = Forward::start(Arc::clone(&identities[0]), listener).unwrap();
        let chain = Self {
            contents,
            forward,
            origin_events,
            nodes,
        };
        for index in 0..count {
            chain.join(index);
        }
        chain
    }

    /// Makes whoever is before a node feed it.
    fn join(&self, index: usize) {
        let next = Some(self.nodes[index].neighbour);
        match index.checked_sub(1) {
            None => self.forward.switch().set(next),
            Some(before) => self.nodes[before].hop.as_ref().unwrap().switch().set(next),
        }
    }

    fn feed(&self, chunks: impl Iterator<Item = u32>) {
        let left_out = feed(&self.forward, chunks, |chunk, bytes| {
            bytes.clone_from(&self.contents[chunk as usize]);
            Ok(())
        });
        assert!(left_out.is_empty());
    }

    /// Sends one chunk, and no end of the round.
    fn send(&self, index: u32) {
        let bytes = &self.contents[index as usize];
        let length = u32::try_from(bytes.len()).unwrap();
        self.forward.frame(frame::Frame::Chunk { index, length });
        bytes
            .chunks(PIECE)
            .for_each(|piece| self.forward.piece(piece));
    }

    fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.contents.len()).unwrap()
    }

    fn has(&self, node: usize) -> Vec<u32> {
        let kept = self.nodes[node].store.kept.lock().unwrap();
        for (&chunk, stored) in kept.iter() {
            assert_eq!(stored, &self.contents[chunk as usize]);
        }
        kept.keys().copied().collect()
    }
}

/// The next event that is not about progress.
fn next(events: &Receiver<RelayEvent>) -> RelayEvent {
    loop {
        match events.recv_timeout(Duration::from_mins(1)).unwrap() {
            RelayEvent::Progress { .. } => {}
            event => return event,
        }
    }
}

fn wait_done(node: &TestNode) {
    loop {
        match next(&node.events) {
            RelayEvent::RoundDone => return,
            RelayEvent::FeederLost { .. } | RelayEvent::NextFailed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn eight_nodes_get_everything_from_one_reading() {
    let chain = TestChain::new(8);
    chain.feed(chain.all());
    for (number, node) in chain.nodes.iter().enumerate() {
        assert!(matches!(next(&node.events), RelayEvent::RoundDone));
        assert_eq!(chain.has(number), chain.all().collect::<Vec<_>>());
    }
}

#[test]
fn a_dead_node_is_reported_and_bridged_and_missed_chunks_come_again() {
    let mut chain = TestChain::new(4);
    let dead = chain.nodes[1].neighbour.address;
    drop(chain.nodes[1].hop.take());
    chain.send(0);
    let RelayEvent::NextFailed { next: failed, .. } = next(&chain.nodes[0].events) else {
        panic!()
    };
    assert_eq!(failed, dead);

    let bridge = chain.nodes[2].neighbour;
    chain.nodes[0]
        .hop
        .as_ref()
        .unwrap()
        .switch()
        .set(Some(bridge));
    chain.feed(chain.all());
    for number in [0, 2, 3] {
        wait_done(&chain.nodes[number]);
    }
    for number in [0, 2, 3] {
        assert_eq!(chain.has(number), chain.all().collect::<Vec<_>>());
    }
    assert!(chain.has(1).is_empty());
}

#[test]
fn a_neighbour_that_cannot_be_reached_is_reported() {
    let chain = TestChain::new(1);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let fingerprint = Sha256::of(b"x");
    chain.forward.switch().set(Some(Neighbour {
        address: nobody,
        fingerprint,
    }));
    chain.feed(0..1);
    assert!(
        matches!(next(&chain.origin_events), RelayEvent::NextFailed { next, .. } if next == nobody)
    );
}

#[test]
fn a_neighbour_with_another_certificate_gets_nothing() {
    let chain = TestChain::new(1);
    let mut wrong = chain.nodes[0].neighbour;
    wrong.fingerprint = Sha256::of(b"somebody else");
    chain.forward.switch().set(Some(wrong));
    chain.feed(chain.all());
    assert!(matches!(
        next(&chain.origin_events),
        RelayEvent::NextFailed { .. }
    ));
    assert!(chain.has(0).is_empty());
}

#[test]
fn strangers_change_nothing() {
    let chain = TestChain::new(2);
    let port: SocketAddr = chain.nodes[1].neighbour.address;
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(port).unwrap()).collect();
    let mut rude = TcpStream::connect(port).unwrap();
    rude.write_all(&[0xff; 5000]).unwrap();
    let stranger = Identity::generate().unwrap();
    let pin = chain.nodes[1].neighbour.fingerprint;
    if let Ok(mut stream) = stranger.connect(TcpStream::connect(port).unwrap(), pin) {
        let _ = stream.write_all(&frame::Frame::End.to_bytes());
    }
    chain.feed(chain.all());
    assert!(matches!(
        next(&chain.nodes[1].events),
        RelayEvent::RoundDone
    ));
    assert_eq!(chain.has(1), chain.all().collect::<Vec<_>>());
    drop(silent);
}

#[test]
fn a_chunk_that_was_changed_on_the_way_is_kept_by_nobody() {
    let chain = TestChain::new(2);
    feed(&chain.forward, chain.all(), |chunk, bytes| {
        bytes.clone_from(&chain.contents[chunk as usize]);
        if chunk == 7 {
            bytes[100] ^= 1;
        }
        Ok(())
    });
    for (number, node) in chain.nodes.iter().enumerate() {
        assert!(matches!(
            next(&node.events),
            RelayEvent::Changed { chunk: 7 }
        ));
        wait_done(node);
        assert_eq!(
            chain.has(number),
            chain.all().filter(|&chunk| chunk != 7).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_chunk_that_cannot_be_read_is_left_out_and_named() {
    let chain = TestChain::new(1);
    let left_out = feed(&chain.forward, chain.all(), |chunk, bytes| {
        if chunk == 3 {
            return Err(Error::Damaged("vol-0001.tar".into()));
        }
        bytes.clone_from(&chain.contents[chunk as usize]);
        Ok(())
    });
    assert!(matches!(&left_out[..], [(3, Error::Damaged(_))]));
    wait_done(&chain.nodes[0]);
    assert_eq!(chain.has(0).len(), chain.contents.len() - 1);
}

#[test]
fn a_full_disk_is_reported_once_with_its_exit_code() {
    let mut chain = TestChain::new(1);
    let identity = Arc::new(Identity::generate().unwrap());
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let neighbour = Neighbour {
        address: port.local_addr().unwrap(),
        fingerprint: identity.fingerprint(),
    };
    let origin = Arc::new(Identity::generate().unwrap());
    let (listener, events) = hear();
    let setup = Setup {
        identity,
        port,
        feeders: vec![origin.fingerprint()],
        chunks: chunks(&chain.contents).into(),
        store: Arc::new(Full),
        listener,
    };
    let full = Hop::start(setup).unwrap();
    let (listener, _) = hear();
    chain.forward = Forward::start(origin, listener).unwrap();
    chain.forward.switch().set(Some(neighbour));
    chain.feed(0..5);
    let RelayEvent::Broken { error } = next(&events) else {
        panic!()
    };
    assert_eq!(error.exit_code(), 13);
    drop(full);
    assert!(
        events
            .iter()
            .all(|event| !matches!(event, RelayEvent::Broken { .. }))
    );
}

#[test]
fn a_feeder_that_dies_within_a_chunk_leaves_no_half_chunk_behind() {
    let chain = TestChain::new(2);
    let length = u32::try_from(chain.contents[29].len()).unwrap();
    chain
        .forward
        .frame(frame::Frame::Chunk { index: 29, length });
    chain.forward.piece(&chain.contents[29][..PIECE / 2]);
    chain.forward.abort();
    assert!(matches!(
        next(&chain.nodes[0].events),
        RelayEvent::FeederLost { .. }
    ));
    chain.feed(chain.all());
    for (number, node) in chain.nodes.iter().enumerate() {
        wait_done(node);
        assert_eq!(chain.has(number), chain.all().collect::<Vec<_>>());
    }
}

#[test]
fn a_neighbour_that_is_set_within_the_first_chunk_gets_all_of_it() {
    let chain = TestChain::new(2);
    let bytes = &chain.contents[29];
    let length = u32::try_from(bytes.len()).unwrap();
    chain
        .forward
        .frame(frame::Frame::Chunk { index: 29, length });
    chain.forward.piece(&bytes[..PIECE / 2]);
    chain.forward.switch().set(Some(chain.nodes[1].neighbour));
    chain.forward.piece(&bytes[PIECE / 2..]);
    chain.feed(0..2);
    wait_done(&chain.nodes[1]);
    assert_eq!(chain.has(1), [0, 1, 29]);
    assert_eq!(chain.has(0), [0; 0]);
}

#[test]
fn a_node_that_dies_near_the_end_leaves_nobody_waiting() {
    let mut chain = TestChain::new(3);
    drop(chain.nodes[1].hop.take());
    chain.feed(0..2);
    // Everything, with the end of the round, was passed to the dead node before anybody is told.
    wait_done(&chain.nodes[0]);
    let bridge = chain.nodes[2].neighbour;
    let feeder = chain.nodes[0].hop.as_ref().unwrap();
    feeder.switch().set(Some(bridge));
    wait_done(&chain.nodes[2]);
    assert_eq!(chain.has(0), [0, 1]);
}

#[test]
fn an_origin_whose_first_node_dies_near_the_end_ends_the_round_for_the_rest() {
    let mut chain = TestChain::new(2);
    drop(chain.nodes[0].hop.take());
    chain.feed(0..2);
    assert!(matches!(
        next(&chain.origin_events),
        RelayEvent::NextFailed { .. }
    ));
    let bridge = chain.nodes[1].neighbour;
    chain.forward.switch().set(Some(bridge));
    wait_done(&chain.nodes[1]);
}
