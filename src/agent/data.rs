//! The node's data port: its certificate for this run, and its place in the relay chain.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::outbox::Outbox;
use super::protocol::{self, Answer, Event, Fingerprint};
use super::store::Store;
use crate::bundle::codec::Encoder;
use crate::bundle::ranges::indices;
use crate::error::{Error, Result};
use crate::relay::forward::Forward;
use crate::relay::hop::{Hop, Setup};
use crate::relay::tls::Identity;
use crate::relay::{Listener, Neighbour, RelayEvent, feed};

/// An open data port, with a hop during a round.
pub struct DataPort {
    identity: Arc<Identity>,
    listener: TcpListener,
    hop: Option<Hop>,
    /// While this node feeds the chain.
    feeder: Option<Feeder>,
}

/// A node that is the beginning of the chain.
#[derive(Clone)]
pub struct Feeder {
    forward: Arc<Forward>,
    over: Arc<AtomicBool>,
}

impl Feeder {
    /// Sends these chunks and the end of the round, until that is over; returns what was left out.
    pub fn feed(&self, store: &Store, chunks: &[(u32, u32)]) -> Result<Vec<(u32, Error)>> {
        let mut encoder = Encoder::new()?;
        let wanted = indices(chunks).take_while(|_| !self.over.load(Ordering::Relaxed));
        Ok(feed(&self.forward, wanted, |index, stored| {
            *stored = store.give(index, &mut encoder)?;
            Ok(())
        }))
    }
}

impl DataPort {
    /// Opens a port on all addresses (0: any free one) with a new certificate.
    pub fn open(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .map_err(|cause| cannot_listen(port, &cause))?;
        Ok(Self {
            identity: Arc::new(Identity::generate()?),
            listener,
            hop: None,
            feeder: None,
        })
    }

    /// Becomes the beginning of the chain, with nobody next yet.
    pub fn lead(&mut self, outbox: &Outbox) -> Result<()> {
        self.leave();
        let outbox = outbox.clone();
        let listener: Listener = Arc::new(move |event| outbox.event(reported(event)));
        let feeder = Feeder {
            forward: Arc::new(Forward::start(Arc::clone(&self.identity), listener)?),
            over: Arc::default(),
        };
        self.feeder = Some(feeder);
        Ok(())
    }

    /// The sending side of a node that leads.
    pub fn feeder(&self) -> Result<Feeder> {
        let none = || Error::Failed("the node does not lead the chain".into());
        self.feeder.clone().ok_or_else(none)
    }

    /// Where it listens and what it shows.
    pub fn describe(&self) -> Result<Answer> {
        let address = self
            .listener
            .local_addr()
            .map_err(|cause| cannot_listen(0, &cause))?;
        Ok(Answer::Listening {
            port: address.port(),
            fingerprint: self.identity.fingerprint(),
        })
    }

    /// Begins a round; an earlier one is over.
    pub fn join(
        &mut self,
        store: Arc<Store>,
        feeders: Vec<Fingerprint>,
        next: Option<&protocol::Hop>,
        outbox: &Outbox,
    ) -> Result<()> {
        self.leave();
        let port = self
            .listener
            .try_clone()
            .map_err(|cause| cannot_listen(0, &cause))?;
        let outbox = outbox.clone();
        let hop = Hop::start(Setup {
            identity: Arc::clone(&self.identity),
            port,
            feeders,
            chunks: store.manifest().chunks.clone().into(),
            store,
            listener: Arc::new(move |event| outbox.event(reported(event))),
        })?;
        hop.switch().set(next.map(neighbour));
        self.hop = Some(hop);
        Ok(())
    }

    /// Changes the next node.
    pub fn relink(&self, next: Option<&protocol::Hop>) -> Result<()> {
        let of_hop = self.hop.as_ref().map(|hop| hop.switch().clone());
        let of_feeder = self.feeder.as_ref().map(|feeder| feeder.forward.switch());
        let switch = of_hop.or(of_feeder).ok_or_else(|| {
            Error::Failed("the node is in no round whose next node could change".into())
        })?;
        switch.set(next.map(neighbour));
        Ok(())
    }

    /// Ends the round: connections are dropped, received chunks are finished.
    pub fn leave(&mut self) {
        self.hop = None;
        if let Some(feeder) = self.feeder.take() {
            feeder.over.store(true, Ordering::Relaxed);
        }
    }
}

fn neighbour(hop: &protocol::Hop) -> Neighbour {
    Neighbour {
        address: hop.address,
        fingerprint: hop.fingerprint,
    }
}

fn reported(event: RelayEvent) -> Event {
    match event {
        RelayEvent::Progress {
            stored_chunks,
            received,
            held,
        } => Event::Progress {
            stored_chunks,
            received,
            held: u64::try_from(held.as_millis()).unwrap_or(u64::MAX),
        },
        RelayEvent::Changed { chunk } => Event::Changed { chunk },
        RelayEvent::RoundDone => Event::RoundDone,
        RelayEvent::NextFailed { next, message } => Event::NextFailed { next, message },
        RelayEvent::FeederLost { message } => Event::FeederLost { message },
        RelayEvent::Broken { error } => Event::Broken {
            code: error.exit_code(),
            message: error.to_string(),
        },
    }
}

fn cannot_listen(port: u16, cause: &io::Error) -> Error {
    if cause.kind() == io::ErrorKind::AddrInUse {
        return Error::Failed(format!(
            "data port {port} is in use on this node; choose another with --data-port"
        ));
    }
    Error::Failed(format!("cannot open a data port: {cause}"))
}
