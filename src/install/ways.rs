//! The way that data takes from each machine of a chain to the next: straight to its data port,
//! or through ssh where that cannot be reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chain::Upstream;
use super::reach::Reach;
use super::tunnel::{Exit, Tunnel};
use crate::agent::fleet::Member;
use crate::agent::protocol::Hop;
use crate::error::Error;

/// The ways of one round; its tunnels end with it.
pub struct Ways<'a> {
    members: &'a [Member],
    reach: &'a Reach,
    /// The member that feeds the chain in place of the origin.
    giver: Option<usize>,
    /// By member: its data port.
    hops: &'a [Option<Hop>],
    tunnels: Mutex<BTreeMap<(Upstream, usize), Tunnel>>,
}

impl<'a> Ways<'a> {
    /// Without any tunnel yet.
    #[must_use]
    pub fn new(
        members: &'a [Member],
        reach: &'a Reach,
        giver: Option<usize>,
        hops: &'a [Option<Hop>],
    ) -> Self {
        Self {
            members,
            reach,
            giver,
            hops,
            tunnels: Mutex::default(),
        }
    }

    /// What `feeder` is told of the node that comes next; opens a tunnel if it needs one. The
    /// error is about that node.
    pub fn to(
        &self,
        feeder: Upstream,
        next: Option<usize>,
    ) -> std::result::Result<Option<Hop>, (usize, Error)> {
        let Some((node, hop)) = next.and_then(|node| Some((node, self.hops[node].as_ref()?)))
        else {
            return Ok(None);
        };
        let from = match feeder {
            Upstream::Origin => self.giver,
            Upstream::Node(node) => Some(node),
        };
        if self.reach.is_open(from, node) {
            return Ok(Some(hop.clone()));
        }
        let exit = if self.reach.is_open(None, node) {
            Exit::Here(hop.address)
        } else {
            Exit::Node(&self.members[node], hop.address.port())
        };
        let entry = from.map(|from| &self.members[from]);
        let tunnel = Tunnel::open(entry, &exit).map_err(|error| (node, error))?;
        let through = Hop {
            address: tunnel.entry,
            fingerprint: hop.fingerprint,
        };
        self.lock().insert((feeder, node), tunnel);
        Ok(Some(through))
    }

    /// The node that `feeder` knows by this address, and whether a tunnel is between them.
    #[must_use]
    pub fn node_at(&self, feeder: Upstream, address: SocketAddr) -> Option<(usize, bool)> {
        let tunnels = self.lock();
        let mut through = tunnels
            .iter()
            .filter(|((of, _), tunnel)| *of == feeder && tunnel.entry == address);
        if let Some(((_, node), _)) = through.next() {
            return Some((*node, true));
        }
        let is_it = |hop: &Option<Hop>| hop.as_ref().is_some_and(|hop| hop.address == address);
        Some((self.hops.iter().position(is_it)?, false))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Upstream, usize), Tunnel>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
