//! How bytes are protected on the way from one node to the next, once TLS has told both who the other is:
//!
//! ```text
//! length u32 big-endian | tag, 16 bytes | so many bytes, AES-128-GCM
//! ```
//!
//! The keys come from the TLS session (RFC 8446, 7.5), so they are as fresh, as secret and as bound to both
//! certificates as those of TLS itself. Its own records hold 16 KiB and are copied five times on their way through a
//! node; these hold more, arrive where they are wanted, are decrypted there, and are copied once to be encrypted.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use rustls::Connection;

/// Names this use of the session. Only the side that connected sends, so one direction is all there is.
const LABEL: &[u8] = b"EXPORTER-bundle-relay";

/// Bytes of a record at most.
pub const RECORD: usize = 64 << 10;

/// Records under one key: 4 GiB, a small part of what TLS allows for AES-GCM.
const PER_KEY: u64 = 1 << 16;

const LENGTH: usize = 4;

const HEADER: usize = LENGTH + 16;

/// The sending end of a connection.
pub struct Sending {
    tcp: TcpStream,
    keys: Keys,
    /// The record that is being sent.
    record: Vec<u8>,
}

/// The receiving end of a connection.
pub struct Receiving {
    tcp: TcpStream,
    keys: Keys,
}

/// A key and a nonce for each record: no pair is used twice.
struct Keys {
    tls: Connection,
    key: LessSafeKey,
    /// Records so far.
    count: u64,
}

impl Sending {
    /// After the handshake of `tls` over `tcp`.
    pub fn new(tls: Connection, tcp: TcpStream) -> io::Result<Self> {
        Ok(Self {
            tcp,
            keys: Keys::new(tls)?,
            record: Vec::new(),
        })
    }

    /// Sends bytes, a record for each [`RECORD`] of them.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(RECORD)
            .try_for_each(|bytes| self.send_record(bytes))
    }

    fn send_record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = length(bytes)?;
        self.record.clear();
        self.record.extend_from_slice(&[0; HEADER]);
        self.record.extend_from_slice(bytes);
        let (header, body) = self.record.split_at_mut(HEADER);
        let (key, nonce) = self.keys.next()?;
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(length), body)
            .map_err(|_| io::Error::other("encryption failed"))?;
        header[..LENGTH].copy_from_slice(&length);
        header[LENGTH..].copy_from_slice(tag.as_ref());
        self.tcp.write_all(&self.record)
    }

    /// Closes the connection, also for other handles of it.
    pub fn close(&self) {
        // It may be closed already.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

impl Receiving {
    /// After the handshake of `tls` over `tcp`.
    pub fn new(tls: Connection, tcp: TcpStream) -> io::Result<Self> {
        let keys = Keys::new(tls)?;
        Ok(Self { tcp, keys })
    }

    /// Fills `bytes` from the next record, which must be as long; returns whether one came before the end.
    pub fn receive(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut header = [0; HEADER];
        let begun = self.tcp.read(&mut header)?;
        if begun == 0 {
            return Ok(false);
        }
        self.tcp.read_exact(&mut header[begun..])?;
        let length = length(bytes)?;
        let Some(tag) = header.strip_prefix(&length) else {
            return Err(io::Error::other(
                "the feeder sent another length than expected",
            ));
        };
        let tag = Tag::try_from(tag).map_err(|_| io::Error::other("no tag"))?;
        self.tcp.read_exact(bytes)?;
        let (key, nonce) = self.keys.next()?;
        key.open_in_place_separate_tag(nonce, Aad::from(length), tag, bytes, 0..)
            .map_err(|_| io::Error::other("what arrived is not what was sent"))?;
        Ok(true)
    }
}

fn length(bytes: &[u8]) -> io::Result<[u8; LENGTH]> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok(length.to_be_bytes())
}

impl Keys {
    fn new(tls: Connection) -> io::Result<Self> {
        let key = export(&tls, 0)?;
        Ok(Self { tls, key, count: 0 })
    }

    /// What protects the next record.
    fn next(&mut self) -> io::Result<(&LessSafeKey, Nonce)> {
        if self.count > 0 && self.count.is_multiple_of(PER_KEY) {
            self.key = export(&self.tls, self.count / PER_KEY)?;
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Ok((&self.key, Nonce::assume_unique_for_key(nonce)))
    }
}

/// The session's key of this number.
fn export(tls: &Connection, number: u64) -> io::Result<LessSafeKey> {
    let context = number.to_be_bytes();
    let key = tls
        .export_keying_material([0; 16], LABEL, Some(&context))
        .map_err(io::Error::other)?;
    let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| io::Error::other("no key"))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::relay::tls::Identity;

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn connected() -> (Sending, Receiving) {
        let [alice, bob] = [(); 2].map(|()| Identity::generate().unwrap());
        let (here, there) = sockets();
        thread::scope(|scope| {
            let sending = scope.spawn(|| alice.connect(here, bob.fingerprint()).unwrap());
            let receiving = bob.accept(there, &[alice.fingerprint()]).unwrap();
            (sending.join().unwrap(), receiving)
        })
    }

    /// What `send` would put on the wire for these bytes.
    fn sealed(sending: &mut Sending, bytes: &[u8]) -> Vec<u8> {
        let (here, mut there) = sockets();
        let wire = std::mem::replace(&mut sending.tcp, here);
        sending.send(bytes).unwrap();
        sending.tcp = wire;
        let mut record = vec![0; HEADER + bytes.len()];
        there.read_exact(&mut record).unwrap();
        record
    }

    #[test]
    fn both_sides_change_their_keys_at_the_same_record() {
        let (mut sending, mut receiving) = connected();
        let first = export(&sending.keys.tls, 0).unwrap();
        let sender = thread::spawn(move || {
            for number in 0..PER_KEY + 2 {
                sending.send(&number.to_be_bytes()).unwrap();
            }
            sending
        });
        let mut bytes = [0; 8];
        for number in 0..PER_KEY + 2 {
            assert!(receiving.receive(&mut bytes).unwrap());
            assert_eq!(u64::from_be_bytes(bytes), number);
        }
        let sending = sender.join().unwrap();
        let tags = [&first, &sending.keys.key].map(|key| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut []);
            tag.unwrap().as_ref().to_vec()
        });
        assert_ne!(tags[0], tags[1], "another key");
        sending.close();
        assert!(!receiving.receive(&mut bytes).unwrap(), "the end");
    }

    #[test]
    fn what_was_changed_or_repeated_or_torn_is_refused() {
        for at in [0, 3, LENGTH, HEADER - 1, HEADER, HEADER + 99] {
            let (mut sending, mut receiving) = connected();
            let mut record = sealed(&mut sending, &[7; 100]);
            assert!(!record.ends_with(&[7; 8]), "encrypted");
            record[at] ^= 1;
            sending.tcp.write_all(&record).unwrap();
            assert!(receiving.receive(&mut [0; 100]).is_err(), "byte {at}");
        }
        let (mut sending, mut receiving) = connected();
        let record = sealed(&mut sending, &[7; 100]);
        let mut bytes = [0; 100];
        sending.tcp.write_all(&record).unwrap();
        assert!(receiving.receive(&mut bytes).unwrap());
        assert_eq!(bytes, [7; 100]);
        sending.tcp.write_all(&record).unwrap();
        assert!(receiving.receive(&mut bytes).is_err(), "repeated");

        let (mut sending, mut receiving) = connected();
        let record = sealed(&mut sending, &[7; 100]);
        sending.tcp.write_all(&record[..HEADER + 50]).unwrap();
        sending.close();
        assert!(receiving.receive(&mut bytes).is_err(), "torn");
    }
}
