//! Names of the entries of a tar that streams past in pieces of any size.

/// Bytes of a tar block.
const BLOCK: usize = 512;

/// A long name above this is no name.
const MAX_NAME: u64 = 1 << 16;

/// Finds the name of every entry. What is not a tar ends it quietly: the layer's digest decides
/// about its content, this only looks.
pub struct Scanner {
    block: Vec<u8>,
    state: State,
    /// From a GNU long name or a pax header, for the entry that follows.
    long_name: Option<String>,
}

enum State {
    /// A header block is being collected.
    Header,
    /// So many bytes of content and padding are skipped.
    Skip(u64),
    /// A long name or pax header is being collected: its length, the padding after it, its type.
    Name { length: u64, padding: u64, kind: u8 },
    /// No tar, or its end.
    Done,
}

impl Scanner {
    /// A scanner at the start of a tar.
    pub fn new() -> Self {
        Self {
            block: Vec::new(),
            state: State::Header,
            long_name: None,
        }
    }

    /// Looks at the next bytes; `found` gets the names.
    pub fn update(&mut self, mut bytes: &[u8], found: &mut impl FnMut(&str)) {
        while !bytes.is_empty() {
            match self.state {
                State::Done => return,
                State::Skip(left) => {
                    let now = left.min(bytes.len() as u64);
                    bytes = bytes
                        .get(usize::try_from(now).unwrap_or(usize::MAX)..)
                        .unwrap_or_default();
                    self.state = if left == now {
                        State::Header
                    } else {
                        State::Skip(left - now)
                    };
                }
                State::Header => {
                    bytes = self.collect(bytes, BLOCK);
                    if self.block.len() == BLOCK {
                        self.header(found);
                    }
                }
                State::Name {
                    length,
                    padding,
                    kind,
                } => {
                    bytes = self.collect(bytes, usize::try_from(length).unwrap_or(usize::MAX));
                    if self.block.len() as u64 == length {
                        self.long_name = name_in(&self.block, kind).or(self.long_name.take());
                        self.block.clear();
                        self.state = skip(padding);
                    }
                }
            }
        }
    }

    /// Moves bytes into the block until it has `wanted`; returns the rest.
    fn collect<'a>(&mut self, bytes: &'a [u8], wanted: usize) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(wanted - self.block.len()));
        self.block.extend_from_slice(now);
        rest
    }

    fn header(&mut self, found: &mut impl FnMut(&str)) {
        let block = std::mem::take(&mut self.block);
        let Some(size) = number(&block[124..136]) else {
            self.state = State::Done;
            return;
        };
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        match block[156] {
            kind @ (b'L' | b'x') if size > 0 && size <= MAX_NAME => {
                self.state = State::Name {
                    length: size,
                    padding,
                    kind,
                };
            }
            b'g' | b'K' | b'L' | b'x' => self.state = skip(size + padding),
            kind => {
                let name = self.long_name.take().unwrap_or_else(|| short_name(&block));
                if name.is_empty() {
                    self.state = State::Done;
                    return;
                }
                found(name.trim_start_matches("./"));
                let has_content = matches!(kind, 0 | b'0' | b'7');
                self.state = skip(if has_content { size + padding } else { 0 });
            }
        }
    }
}

fn skip(bytes: u64) -> State {
    if bytes == 0 {
        State::Header
    } else {
        State::Skip(bytes)
    }
}

/// An octal or base-256 number field.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let low = &field[field.len() - 8..];
        return Some(
            low.iter()
                .fold(0, |value, &byte| value << 8 | u64::from(byte)),
        )
        .filter(|&value| value < 1 << 50);
    }
    let text = text(field);
    if text.trim().is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(text.trim(), 8).ok()
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn short_name(block: &[u8]) -> String {
    let prefix = if &block[257..262] == b"ustar" {
        text(&block[345..500])
    } else {
        String::new()
    };
    let name = text(&block[..100]);
    // GNU tars use the prefix field for other things, and say so by a blank after the magic.
    if prefix.is_empty() || block[262] == b' ' {
        name
    } else {
        format!("{prefix}/{name}")
    }
}

/// The name in a GNU long-name entry, or in a pax header's `path` record.
fn name_in(content: &[u8], kind: u8) -> Option<String> {
    if kind == b'L' {
        return Some(text(content));
    }
    let mut rest = content;
    while !rest.is_empty() {
        let blank = rest.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length.checked_sub(1)?)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(String::from_utf8_lossy(path).into_owned());
        }
        rest = rest.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (number, name) in names.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(number as u64 * 300);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            builder
                .append_data(&mut header, name, &vec![b'x'; number * 300][..])
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn names(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut scanner = Scanner::new();
        for piece in bytes.chunks(piece) {
            scanner.update(piece, &mut |name: &str| found.push(name.to_owned()));
        }
        found
    }

    #[test]
    fn names_are_found_however_the_bytes_arrive() {
        let long = format!("usr/lib/{}/METADATA", "x".repeat(200));
        let expected = ["bin/ray", long.as_str(), "etc/passwd"];
        let bytes = tar_of(&expected);
        for piece in [1, 7, 512, 1000, bytes.len()] {
            assert_eq!(names(&bytes, piece), expected, "{piece}");
        }
    }

    #[test]
    fn pax_paths_are_read() {
        let mut bytes = Vec::new();
        let record = b"23 path=pax/named.file\n";
        let mut builder = tar::Builder::new(&mut bytes);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        builder.append(&header, &record[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        drop(builder);
        assert_eq!(names(&bytes, 100), ["pax/named.file"]);
    }

    #[test]
    fn what_is_no_tar_is_left_alone() {
        assert_eq!(names(&[0; 10240], 512), Vec::<String>::new());
        assert_eq!(names(&[0xff; 5000], 512), Vec::<String>::new());
        assert_eq!(names(b"short", 2), Vec::<String>::new());
    }
}
