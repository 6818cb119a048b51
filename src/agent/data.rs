//! The node's data port: its certificate for this run, and its place in the relay chain.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use super::outbox::Outbox;
use super::protocol::{self, Answer, Event, Fingerprint};
use super::store::Store;
use crate::error::{Error, Result};
use crate::relay::hop::{Hop, Setup};
use crate::relay::tls::Identity;
use crate::relay::{Neighbour, RelayEvent};

/// An open data port, with a hop during a round.
pub struct DataPort {
    identity: Arc<Identity>,
    listener: TcpListener,
    hop: Option<Hop>,
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
        })
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
        self.hop = None;
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
        let hop = self.hop.as_ref().ok_or_else(|| {
            Error::Failed("the node is in no round whose next node could change".into())
        })?;
        hop.switch().set(next.map(neighbour));
        Ok(())
    }

    /// Ends the round: connections are dropped, received chunks are finished.
    pub fn leave(&mut self) {
        self.hop = None;
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
        } => Event::Progress {
            stored_chunks,
            received,
        },
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
