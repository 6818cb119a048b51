//! Synthetic models on disk, made once.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;

use crate::loopback::synthetic::weights;

/// Files that a model is split into, made in parallel.
const FILES: usize = 8;

/// What a model consists of.
#[derive(Clone, Copy)]
pub enum Kind {
    Bf16,
    Fp16,
    Fp32,
    Noise,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
            Self::Noise => "noise",
        }
    }

    /// 1 MiB of it.
    fn mebibyte(self, seed: u64) -> Vec<u8> {
        match self {
            Self::Bf16 => weights::bf16(&weights::weights(seed, 512 << 10)),
            Self::Fp16 => weights::fp16(&weights::weights(seed, 512 << 10)),
            Self::Fp32 => weights::fp32(&weights::weights(seed, 256 << 10)),
            Self::Noise => weights::Random(seed).bytes(1 << 20),
        }
    }
}

/// Where benches keep their data.
pub fn work_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let dir = env::var_os("BENCH_DIR").map_or_else(default, PathBuf::from);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// MiB of the large model.
pub fn large() -> usize {
    env::var("BENCH_MIB").map_or(2048, |text| text.parse().unwrap())
}

/// A directory of so many MiB.
pub fn model(kind: Kind, mib: usize) -> PathBuf {
    let dir = work_dir().join(format!("{}-{mib}", kind.name()));
    if !dir.exists() {
        let part = dir.with_extension("part");
        fs::create_dir_all(&part).unwrap();
        thread::scope(|scope| {
            for number in 0..FILES {
                let path = part.join(format!("model-{number}.safetensors"));
                scope.spawn(move || write(kind, &path, number, mib / FILES));
            }
        });
        fs::rename(part, &dir).unwrap();
    }
    dir
}

fn write(kind: Kind, path: &Path, number: usize, mib: usize) {
    let mut file = File::create(path).unwrap();
    for piece in 0..mib {
        let seed = (number * mib + piece) as u64;
        file.write_all(&kind.mebibyte(seed)).unwrap();
    }
}

/// Bytes of the files below a directory whose names begin like this; of all for nothing.
pub fn size_of(dir: &Path, start: &str) -> u64 {
    let files = walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(Result::ok);
    files
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

/// An empty directory with a spec for one model.
pub fn fresh(name: &str) -> PathBuf {
    let dir = work_dir().join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let spec = "name = \"b\"\n[[model]]\nrepo = \"o/m\"\npath = \"/m\"\n";
    fs::write(dir.join("bundle.toml"), spec).unwrap();
    dir
}
