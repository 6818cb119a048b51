//! Whole packs of real directories: what comes out is what went in, always the same, however often
//! the way was interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::base::Base;
use super::local_files::LocalFiles;
use super::plan::{ModelPlan, Plan};
use super::preflight::Forecast;
use super::progress::Progress;
use super::selection::Selection;
use super::source::{Expected, RangeSource, SourceFile};
use super::spec::Spec;
use crate::bundle::CHUNK_SIZE;
use crate::bundle::codec::Decoder;
use crate::bundle::manifest::{Image, ImageFacts, LayerFacts, Manifest, Tree};
use crate::digest::{GitBlobHasher, Sha256};
use crate::error::{Error, Result};
use crate::image::{ImageSource, Layer, Promise, Sink, blob_label};
use crate::weights;

const SPEC: &str = "name = \"t\"\n[[model]]\nrepo = \"o/m\"\npath = \"/data/m\"\npickle = true\n";

/// Chunks in the directory below; two of them are equal.
const CHUNKS: usize = 8;

/// Small enough for several volumes.
const VOLUME_SIZE: u64 = 40 << 20;

struct Silent;

impl Progress for Silent {
    fn forecast(&self, _: Forecast) {}

    fn total(&self, _: u64) {}
    fn file(&self, _: &str) {}
    fn packed(&self, _: u64, _: u64) {}
    fn note(&self, _: &str) {}
}

/// All kinds of content: weights, noise, text, equal chunks, nothing. Made once: it takes a while.
fn contents() -> &'static [(&'static str, Vec<u8>)] {
    static CONTENTS: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    CONTENTS.get_or_init(|| {
        let chunk = usize::try_from(CHUNK_SIZE).unwrap();
        let mut random = weights::Random(7);
        let noise = random.bytes(chunk);
        let other: Vec<u8> = noise.iter().map(|byte| byte ^ 0x5a).collect();
        let bf16 = weights::bf16(&weights::weights(1, 100_000));
        vec![
            (
                "a.safetensors",
                bf16.iter().copied().cycle().take(chunk + 1000).collect(),
            ),
            ("b.bin", [&noise[..], &noise, b"tail"].concat()),
            ("config.json", b"{\"a\": 1}".repeat(1000)),
            ("empty", Vec::new()),
            (
                "sub/ein Name #1 \u{fc}",
                [&other[..], &other[1..], b"x"].concat(),
            ),
        ]
    })
}

/// A model directory with these contents.
fn model(root: &Path) -> PathBuf {
    let dir = root.join("model");
    fs::create_dir_all(dir.join("sub")).unwrap();
    for (name, bytes) in contents() {
        fs::write(dir.join(name), bytes).unwrap();
    }
    dir
}

fn plan(source: impl RangeSource + 'static, out: &Path, jobs: usize) -> Plan {
    Plan {
        spec: Spec::parse(SPEC).unwrap(),
        base: None,
        out: out.to_owned(),
        volume_size: VOLUME_SIZE,
        parity: None,
        jobs,
        fresh: false,
        judge: |_, _| Ok(Vec::new()),
        signer: None,
        models: vec![ModelPlan {
            source: Box::new(source),
            commit: None,
        }],
        image: None,
        extras: Vec::new(),
    }
}

fn open(dir: &Path) -> LocalFiles {
    let spec = Spec::parse(SPEC).unwrap();
    super::model_dir::open(dir, &Selection::of(&spec.models[0], &spec.cluster).unwrap()).unwrap()
}

fn pack(mut plan: Plan) -> Result<Manifest> {
    super::run(&mut plan, &Silent, &AtomicBool::new(false))
}

/// Names and digests of everything below a directory.
fn content(dir: &Path) -> BTreeMap<PathBuf, Sha256> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).unwrap().to_owned();
            (name, Sha256::of(&fs::read(entry.path()).unwrap()))
        })
        .collect()
}

/// A file's bytes put together again from the volumes.
fn unpack(out: &Path, manifest: &Manifest, chunks: &[u32]) -> Vec<u8> {
    let mut decoder = Decoder::new().unwrap();
    let mut bytes = Vec::new();
    for &index in chunks {
        let chunk = &manifest.chunks[index as usize];
        let volume = &manifest.volumes[chunk.volume as usize - 1];
        let tar = fs::read(out.join(&volume.name)).unwrap();
        let start = usize::try_from(chunk.offset).unwrap();
        let stored = &tar[start..][..chunk.stored as usize];
        let mut raw = Vec::new();
        decoder
            .decode(chunk.encoding, stored, chunk.raw as usize, &mut raw)
            .unwrap();
        bytes.extend(raw);
    }
    bytes
}

#[test]
fn what_comes_out_is_what_went_in() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("t.bundle"));
    let manifest = pack(plan(open(&dir), &out, 2)).unwrap();

    let bytes = fs::read(out.join("bundle.json")).unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert!(manifest.volumes.len() > 1);
    assert_eq!(manifest.chunks.len(), CHUNKS - 1, "equal chunks once");
    let mut found = BTreeMap::new();
    for (tree, file) in manifest.files() {
        assert!(matches!(tree, Tree::Model(_)));
        let bytes = unpack(&out, &manifest, &file.chunks);
        assert_eq!(file.size, bytes.len() as u64);
        assert_eq!(file.sha256, Sha256::of(&bytes));
        found.insert(PathBuf::from(file.path.as_str()), file.sha256);
    }
    assert_eq!(found, content(&dir));
    let executable = fs::metadata(out.join("bundle")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&executable.permissions()) & 0o777,
        0o755
    );
    assert!(!out.join(".pack").exists());
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&out)
        .status();
    assert!(check.unwrap().success());
    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), content(&out).len() - 1, "{sums}");
}

#[test]
fn the_bundle_does_not_depend_on_the_number_of_jobs() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let packed = |jobs: usize| {
        let out = root.path().join(format!("{jobs}"));
        pack(plan(open(&dir), &out, jobs)).unwrap();
        content(&out)
    };
    let one = packed(1);
    assert_eq!(one, packed(2));
    assert_eq!(one, packed(7));
}

/// A base of the model as it is now.
fn base_of(dir: &Path, out: &Path) -> Base {
    pack(plan(open(dir), out, 2)).unwrap();
    Base::read(out).unwrap()
}

#[test]
fn a_delta_holds_what_is_new_whatever_the_jobs_and_interruptions() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let first = root.path().join("first");
    let base = base_of(&dir, &first);
    // One chunk of several changes, and a file comes that begins as another does.
    let file = fs::File::options()
        .write(true)
        .open(dir.join("b.bin"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"new", 5).unwrap();
    fs::write(dir.join("added"), b"{\"a\": 1}".repeat(1000)).unwrap();

    let delta = |source: Failing, name: &str, jobs| {
        let mut plan = plan(source, &root.path().join(name), jobs);
        plan.base = Some(Base::read(&first).unwrap());
        pack(plan)
    };
    let manifest = delta(failing(&dir, usize::MAX), "one", 1).unwrap();
    assert_eq!(manifest.base.as_ref(), Some(&base.reference));
    assert_eq!(manifest.serial, 1);
    let new: Vec<_> = manifest
        .chunks
        .iter()
        .filter(|chunk| !chunk.is_in_base())
        .collect();
    assert_eq!(new.len(), 1);
    let bytes = fs::read(root.path().join("one/bundle.json")).unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);

    delta(failing(&dir, usize::MAX), "other", 5).unwrap();
    for limit in 0..=2 {
        delta(failing(&dir, limit), "broken", 2).unwrap_err();
    }
    delta(failing(&dir, usize::MAX), "broken", 2).unwrap();
    let one = content(&root.path().join("one"));
    assert_eq!(one, content(&root.path().join("other")));
    assert_eq!(one, content(&root.path().join("broken")));
}

#[test]
fn files_that_the_hub_promises_and_the_base_has_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let base = base_of(&dir, &root.path().join("first"));
    fs::write(dir.join("config.json"), "new").unwrap();
    let mut source = failing(&dir, usize::MAX);
    for file in &mut source.files {
        let bytes = fs::read(file.path.under(&dir)).unwrap();
        file.expected = Expected::Sha256(Sha256::of(&bytes));
    }
    let reads = source.reads;
    let mut plan = plan(source, &root.path().join("second"), 2);
    plan.base = Some(base);
    let manifest = pack(plan).unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    assert_eq!(manifest.stored_size(), 3);
    assert_eq!(manifest.raw_size(), content_size(&dir));
}

#[test]
fn a_delta_without_volumes_has_no_recovery_volumes() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let base = base_of(&dir, &root.path().join("first"));
    let out = root.path().join("second");
    let mut plan = plan(open(&dir), &out, 2);
    plan.base = Some(base);
    plan.parity = Some("10%".parse().unwrap());
    pack(plan).unwrap();
    let manifest = Manifest::parse(&fs::read(out.join("bundle.json")).unwrap()).unwrap();
    assert_eq!((manifest.volumes.len(), manifest.parity), (0, None));
}

fn content_size(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten();
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// A directory that counts reads and fails from the `limit`-th on.
struct Failing {
    dir: LocalFiles,
    files: Vec<SourceFile>,
    reads: &'static AtomicUsize,
    limit: usize,
}

impl RangeSource for Failing {
    fn files(&self) -> &[SourceFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.reads.fetch_add(1, Ordering::SeqCst) >= self.limit {
            return Err(Error::Failed("the cable was pulled".into()));
        }
        self.dir.read(file, offset, buffer)
    }

    fn remarks(&self) -> &[String] {
        &[]
    }

    fn readers(&self) -> usize {
        1
    }
}

fn failing(dir: &Path, limit: usize) -> Failing {
    let dir = open(dir);
    Failing {
        files: dir.files().to_vec(),
        dir,
        reads: Box::leak(Box::default()),
        limit,
    }
}

#[test]
fn a_pack_that_fails_at_any_read_goes_on_there_and_ends_the_same() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let whole = root.path().join("whole");
    pack(plan(open(&dir), &whole, 2)).unwrap();
    for limit in [0, 1, 2, 4, 5, 7] {
        let out = root.path().join(format!("{limit}"));
        let error = pack(plan(failing(&dir, limit), &out, 2)).unwrap_err();
        assert_eq!(error.to_string(), "the cable was pulled");
        assert!(!out.join("bundle.json").exists());

        let rest = failing(&dir, usize::MAX);
        let reads = rest.reads;
        pack(plan(rest, &out, 1)).unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), CHUNKS - limit);
        assert_eq!(content(&out), content(&whole), "after {limit} chunks");
    }
}

#[test]
fn one_chunk_per_run_ends_the_same() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    pack(plan(open(&dir), &whole, 2)).unwrap();
    for _ in 1..CHUNKS {
        pack(plan(failing(&dir, 1), &out, 2)).unwrap_err();
    }
    pack(plan(failing(&dir, 1), &out, 2)).unwrap();
    assert_eq!(content(&out), content(&whole));
}

#[test]
fn a_wrong_hash_is_refused_by_name_and_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    pack(plan(open(&dir), &whole, 2)).unwrap();

    let bytes = fs::read(dir.join("b.bin")).unwrap();
    let mut git = GitBlobHasher::new(bytes.len() as u64);
    git.update(&bytes);
    let right = [
        Expected::Sha256(Sha256::of(&bytes)),
        Expected::GitBlob(git.finish()),
    ];
    for expected in right {
        let promising = || {
            let mut source = failing(&dir, usize::MAX);
            source.files[1].expected = expected;
            source
        };
        fs::write(dir.join("b.bin"), vec![1; bytes.len()]).unwrap();
        let error = pack(plan(promising(), &out, 2)).unwrap_err();
        assert_eq!(error.exit_code(), 10);
        assert!(error.to_string().contains("b.bin"), "{error}");

        fs::write(dir.join("b.bin"), &bytes).unwrap();
        pack(plan(promising(), &out, 2)).unwrap();
        assert_eq!(content(&out), content(&whole));
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn stopping_keeps_what_is_packed() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("out"));
    let mut stopped = plan(open(&dir), &out, 1);
    let error = super::run(&mut stopped, &Silent, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(error.exit_code(), 130);
    pack(plan(open(&dir), &out, 1)).unwrap();
    let error = pack(plan(open(&dir), &out, 1)).unwrap_err();
    assert!(error.to_string().contains("finished bundle"), "{error}");
}

#[test]
fn another_plan_is_refused_until_told_to_start_over() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("out"));
    let (whole, fresh) = (root.path().join("whole"), root.path().join("model/new"));
    pack(plan(failing(&dir, 5), &out, 1)).unwrap_err();
    fs::write(fresh, "x").unwrap();
    let error = pack(plan(open(&dir), &out, 1)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--fresh"), "{error}");
    let mut changed = plan(open(&dir), &out, 1);
    changed.fresh = true;
    pack(changed).unwrap();
    pack(plan(open(&dir), &whole, 1)).unwrap();
    assert_eq!(content(&out), content(&whole));
}

#[test]
fn a_second_pack_in_the_same_place_is_locked_out() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("out"));
    fs::create_dir_all(out.join(".pack")).unwrap();
    let _lock = crate::fs::Lock::take(&out.join(".pack/lock"), "packing here").unwrap();
    let error = pack(plan(open(&dir), &out, 1)).unwrap_err();
    assert_eq!(error.exit_code(), 15);
}

/// An image of a config and layers in memory, streamed in odd pieces.
struct InMemory {
    parts: Vec<(&'static str, Vec<u8>)>,
    /// Fails after so many parts.
    limit: usize,
    fault: fn(String) -> Error,
}

impl ImageSource for InMemory {
    fn size(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let mut digests = Vec::new();
        for (label, bytes) in self.parts.iter().take(self.limit) {
            sink.begin(&label.parse()?, None)?;
            for piece in bytes.chunks(1_000_003) {
                sink.write(piece)?;
            }
            digests.push(sink.end(LayerFacts::default())?);
        }
        if self.limit < self.parts.len() {
            return Err((self.fault)("the image ended".into()));
        }
        Ok(Image {
            reference: "o/i:1".into(),
            platform: "linux/amd64".into(),
            config: digests[0],
            layers: digests[1..].to_vec(),
            registry_digest: None,
            facts: ImageFacts::default(),
            layer_facts: vec![LayerFacts::default(); digests.len() - 1],
            files: Vec::new(),
        })
    }
}

fn image() -> InMemory {
    let noise = &contents()[1].1;
    InMemory {
        parts: vec![
            ("config.json", b"{}".to_vec()),
            ("one/layer.tar", noise[..20_000_000].to_vec()),
            ("two/layer.tar", Vec::new()),
            ("three/layer.tar", noise[1000..18_000_000].to_vec()),
            ("four/layer.tar", Vec::new()),
        ],
        limit: usize::MAX,
        fault: Error::Failed,
    }
}

fn with_image(dir: &Path, out: &Path, image: InMemory) -> Plan {
    let mut plan = plan(open(dir), out, 2);
    plan.image = Some(Box::new(image));
    plan
}

#[test]
fn an_image_is_kept_as_blobs_named_by_their_content() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("out"));
    let manifest = pack(with_image(&dir, &out, image())).unwrap();
    let bytes = fs::read(out.join("bundle.json")).unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    let packed = &manifest.images[0];
    assert_eq!(packed.layers.len(), 4);
    assert_eq!(packed.files.len(), 4, "equal layers once");
    for (label, bytes) in image().parts {
        let digest = Sha256::of(&bytes);
        let path = format!("blobs/sha256/{digest}");
        let mut files = packed.files.iter();
        let file = files.find(|file| file.path.as_str() == path).unwrap();
        assert_eq!(unpack(&out, &manifest, &file.chunks), bytes, "{label}");
    }
}

#[test]
fn an_image_goes_on_where_it_broke_off() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    pack(with_image(&dir, &whole, image())).unwrap();
    for limit in 0..5 {
        let mut broken = image();
        broken.limit = limit;
        pack(with_image(&dir, &out, broken)).unwrap_err();
    }
    pack(with_image(&dir, &out, image())).unwrap();
    assert_eq!(content(&out), content(&whole));
}

#[test]
fn a_damaged_image_is_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    pack(with_image(&dir, &whole, image())).unwrap();

    // It turns out to be damaged while it streams past.
    let mut damaged = image();
    damaged.parts[1].1[5] ^= 1;
    (damaged.limit, damaged.fault) = (3, Error::Damaged);
    pack(with_image(&dir, &out, damaged)).unwrap_err();
    // It turns out to have changed since the run before.
    let mut broken = image();
    (broken.parts[1].1[5], broken.limit) = (0, 2);
    pack(with_image(&dir, &out, broken)).unwrap_err();
    let error = pack(with_image(&dir, &out, image())).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");

    pack(with_image(&dir, &out, image())).unwrap();
    assert_eq!(content(&out), content(&whole));
}

#[test]
fn an_image_that_cannot_work_is_refused_before_a_model_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (model(root.path()), root.path().join("out"));
    let mut refused = with_image(&dir, &out, image());
    refused.judge = |_, _| Err(Error::Usage("no Ray".into()));
    refused.models[0].source = Box::new(failing(&dir, 0));
    let error = pack(refused).unwrap_err();
    assert_eq!(error.to_string(), "o/i:1: no Ray");
    assert!(!out.join("bundle.json").exists());
}

/// An image whose layers are known before, as a registry's are.
struct Promised {
    promise: Promise,
    layers: Vec<Vec<u8>>,
    limit: usize,
    /// Of a layer that arrives with another byte.
    wrong: Option<usize>,
    streamed: &'static AtomicUsize,
}

impl Promised {
    fn new(streamed: &'static AtomicUsize) -> Self {
        let layers: Vec<_> = image().parts[1..4]
            .iter()
            .map(|part| part.1.clone())
            .collect();
        let promised = layers.iter().map(|bytes| Layer {
            diff_id: Sha256::of(bytes),
            compressed: bytes.len() as u64,
        });
        Self {
            promise: Promise {
                digest: "sha256:1".into(),
                layers: promised.collect(),
            },
            layers,
            limit: usize::MAX,
            wrong: None,
            streamed,
        }
    }
}

impl ImageSource for Promised {
    fn size(&self) -> u64 {
        0
    }

    fn promise(&self) -> Option<&Promise> {
        Some(&self.promise)
    }

    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let mut layer_facts = Vec::new();
        let ids: Vec<Sha256> = self
            .promise
            .layers
            .iter()
            .map(|layer| layer.diff_id)
            .collect();
        for (number, (id, bytes)) in ids.iter().zip(&self.layers).enumerate().take(self.limit) {
            let facts = LayerFacts {
                vllm: Some(number.to_string()),
                ..LayerFacts::default()
            };
            if let Some(known) = sink.has(*id) {
                assert_eq!(known, facts);
                sink.keep(*id)?;
            } else {
                self.streamed.fetch_add(1, Ordering::SeqCst);
                sink.begin(&blob_label(*id)?, Some(*id))?;
                sink.write(bytes)?;
                if self.wrong == Some(number) {
                    sink.write(b"x")?;
                }
                sink.end(facts.clone())?;
            }
            layer_facts.push(facts);
        }
        if self.limit < ids.len() {
            return Err(Error::Failed("the image ended".into()));
        }
        sink.begin(&blob_label(Sha256::of(b"{}"))?, Some(Sha256::of(b"{}")))?;
        sink.write(b"{}")?;
        Ok(Image {
            reference: "o/i:1".into(),
            platform: "linux/amd64".into(),
            config: sink.end(LayerFacts::default())?,
            layers: ids,
            registry_digest: Some(self.promise.digest.clone()),
            facts: ImageFacts::default(),
            layer_facts,
            files: Vec::new(),
        })
    }
}

#[test]
fn complete_layers_are_not_streamed_again_and_a_wrong_one_takes_none_along() {
    static STREAMED: AtomicUsize = AtomicUsize::new(0);
    let root = tempfile::tempdir().unwrap();
    let dir = model(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    let promised = |change: &dyn Fn(&mut Promised), out: &Path| {
        let mut image = Promised::new(&STREAMED);
        change(&mut image);
        let mut plan = plan(open(&dir), out, 2);
        plan.spec = Spec::parse(&format!("{SPEC}[image]\nref = \"o/i:1\"\n")).unwrap();
        plan.image = Some(Box::new(image));
        pack(plan)
    };
    promised(&|_| (), &whole).unwrap();
    assert_eq!(STREAMED.swap(0, Ordering::SeqCst), 3);

    promised(&|image| image.limit = 1, &out).unwrap_err();
    let error = promised(&|image| image.wrong = Some(2), &out).unwrap_err();
    assert_eq!(error.exit_code(), 10, "{error}");
    let error = promised(&|image| image.promise.digest = "sha256:2".into(), &out).unwrap_err();
    assert!(error.to_string().contains("another image"), "{error}");
    promised(&|_| (), &out).unwrap();
    assert_eq!(STREAMED.load(Ordering::SeqCst), 4, "the third layer twice");
    assert_eq!(content(&out), content(&whole));
}
