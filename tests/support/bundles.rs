//! Small real bundles, written with the library's own codec and volumes. Shared by tests and
//! benches.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bundle::bundle::cluster_spec::ClusterSpec;
use bundle::bundle::codec::Encoder;
use bundle::bundle::manifest::{
    Chunk, Extra, FORMAT, FileEntry, Image, ImageFacts, LayerFacts, Manifest, Model, Parity, Volume,
};
use bundle::bundle::parity::{Geometry, Volumes, encode, publish};
use bundle::bundle::sums::Sums;
use bundle::bundle::volume::VolumeWriter;
use bundle::bundle::{CHUNK_SIZE, EXECUTABLE_NAME, MANIFEST_NAME, SUMS_NAME};
use bundle::digest::{Blake3, Sha256};

/// What to put into a bundle.
pub struct Content {
    /// The files of one model, sorted by path.
    pub model: Vec<(String, Vec<u8>)>,
    /// The config and the raw layers of one image; no image when empty.
    pub image: Vec<Vec<u8>>,
    /// Extra files, sorted by path, and whether they are executable; none when empty.
    pub extra: Vec<(String, Vec<u8>, bool)>,
    /// Of the bundle.
    pub serial: u64,
    /// Volumes stay below this many bytes.
    pub volume_size: u64,
    /// The share of it that its recovery volumes can rebuild; none without.
    pub parity: Option<&'static str>,
}

impl Content {
    /// A model of these files.
    pub fn model<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        Self {
            model: files.map(|(path, bytes)| (path.to_owned(), bytes)).to_vec(),
            image: Vec::new(),
            extra: Vec::new(),
            serial: 0,
            volume_size: 4 << 30,
            parity: None,
        }
    }

    /// Writes the bundle into `dir`, with a short text in the place of the executable.
    pub fn write(&self, dir: &Path) -> Manifest {
        fs::create_dir_all(dir).unwrap();
        let mut writer = Writer {
            volumes: VolumeWriter::create(dir, self.volume_size),
            encoder: Encoder::new().unwrap(),
            chunks: Vec::new(),
            index: HashMap::new(),
        };
        let image = self.image.first().map(|_| writer.image(&self.image));
        let files = self.model.iter();
        let model = Model {
            repo: "owner/model".into(),
            revision: "main".into(),
            commit: None,
            path: "/data/model".parse().unwrap(),
            files: files
                .map(|(path, bytes)| writer.file(path, bytes))
                .collect(),
        };
        let extras = (self.extra.first()).map(|_| writer.extra(&self.extra));
        let extras = extras.into_iter().collect();
        let volumes = writer.volumes.finish().unwrap();
        let manifest = Manifest {
            parity: self
                .parity
                .map(|share| recovery(dir, &volumes, share, self.volume_size)),
            format: FORMAT,
            name: "tiny".parse().unwrap(),
            serial: self.serial,
            base: None,
            models: vec![model],
            images: image.into_iter().collect(),
            extras,
            cluster: ClusterSpec::default(),
            volumes,
            chunks: writer.chunks,
        };
        seal(dir, &manifest);
        manifest
    }
}

fn recovery(dir: &Path, volumes: &[Volume], share: &str, limit: u64) -> Parity {
    let sizes: Vec<u64> = volumes.iter().map(|volume| volume.size).collect();
    let geometry = Geometry::choose(&sizes, share.parse().unwrap(), limit).unwrap();
    let paths = volumes.iter().map(|volume| dir.join(&volume.name));
    let row = Volumes::new(paths.zip(sizes));
    let parity = encode(row, &geometry, dir, &mut |_| Ok(())).unwrap();
    publish(&parity, dir).unwrap();
    parity
}

/// Writes the manifest, a stand-in for the executable, and the checksums.
pub fn seal(dir: &Path, manifest: &Manifest) {
    let json = manifest.to_bytes().unwrap();
    let executable = b"#!/bin/sh\n";
    let mut sums = Sums::default();
    let mut add = |name: &str, sha256| sums.insert(name.parse().unwrap(), sha256);
    add(MANIFEST_NAME, Sha256::of(&json));
    add(EXECUTABLE_NAME, Sha256::of(executable));
    for volume in manifest.volumes.iter().chain(manifest.recovery_volumes()) {
        add(&volume.name, volume.sha256);
    }
    fs::write(dir.join(MANIFEST_NAME), json).unwrap();
    fs::write(dir.join(EXECUTABLE_NAME), executable).unwrap();
    fs::write(dir.join(SUMS_NAME), sums.to_string()).unwrap();
}

struct Writer {
    volumes: VolumeWriter,
    encoder: Encoder,
    chunks: Vec<Chunk>,
    index: HashMap<Sha256, u32>,
}

impl Writer {
    fn file(&mut self, path: &str, bytes: &[u8]) -> FileEntry {
        let pieces = bytes.chunks(usize::try_from(CHUNK_SIZE).unwrap());
        FileEntry {
            path: path.parse().unwrap(),
            size: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            chunks: pieces.map(|raw| self.chunk(raw)).collect(),
        }
    }

    fn chunk(&mut self, raw: &[u8]) -> u32 {
        let encoded = self.encoder.encode(raw).unwrap();
        let blob = Sha256::of(&encoded.bytes);
        if let Some(&index) = self.index.get(&blob) {
            return index;
        }
        let (volume, offset) = self.volumes.append(&blob, &encoded.bytes).unwrap();
        let index = u32::try_from(self.chunks.len()).unwrap();
        self.index.insert(blob, index);
        self.chunks.push(Chunk {
            blob,
            stored: u32::try_from(encoded.bytes.len()).unwrap(),
            raw: u32::try_from(raw.len()).unwrap(),
            blake3: Blake3::of(raw),
            encoding: encoded.encoding,
            volume,
            offset,
        });
        index
    }

    fn extra(&mut self, files: &[(String, Vec<u8>, bool)]) -> Extra {
        let executable = files.iter().filter(|(_, _, executable)| *executable);
        Extra {
            path: "/opt/extra".parse().unwrap(),
            executable: executable
                .map(|(path, _, _)| path.parse().unwrap())
                .collect(),
            files: files
                .iter()
                .map(|(path, bytes, _)| self.file(path, bytes))
                .collect(),
        }
    }

    fn image(&mut self, blobs: &[Vec<u8>]) -> Image {
        let digests: Vec<_> = blobs.iter().map(|bytes| Sha256::of(bytes)).collect();
        let named = blobs.iter().zip(&digests);
        Image {
            reference: "example/tiny:1".into(),
            platform: "linux/amd64".into(),
            config: digests[0],
            layers: digests[1..].to_vec(),
            registry_digest: None,
            facts: ImageFacts::default(),
            layer_facts: vec![LayerFacts::default(); digests.len() - 1],
            files: named
                .map(|(bytes, digest)| self.file(&format!("blobs/sha256/{digest}"), bytes))
                .collect(),
        }
    }
}
