//! A node's store against small real bundles, chunk by chunk as the relay hands them over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bundle::agent::protocol::Version;
use bundle::agent::store::{self, Store};
use bundle::bundle::manifest::Manifest;
use bundle::bundle::media::Media;
use bundle::digest::{Blake3, Sha256};
use bundle::relay::Put;

use crate::bundles::Content;

const CHUNK: usize = 16 << 20;

/// A node with its own root, and bundles beside it.
struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn model(&self) -> PathBuf {
        self.root().join("data/model")
    }

    /// Packs content into a bundle called `name`.
    fn bundle(&self, name: &str, content: &Content) -> Media {
        let dir = self.0.path().join(name);
        content.write(&dir);
        Media::open(&[dir]).unwrap()
    }

    fn open(&self, media: &Media) -> Store {
        let text = String::from_utf8(media.manifest_bytes().to_vec()).unwrap();
        Store::open(&self.root(), text).unwrap()
    }

    /// Sends what is missing and publishes; returns how many chunks were sent.
    fn install(&self, media: &Media) -> u32 {
        let store = self.open(media);
        let sent = feed(&store, media);
        store.seal().unwrap();
        drop(store);
        self.activate(media).unwrap();
        sent
    }

    /// Puts a bundle into place that is sealed or was there before.
    fn activate(&self, media: &Media) -> bundle::error::Result<()> {
        let version = Version {
            manifest: Some(Sha256::of(media.manifest_bytes())),
        };
        store::Prepared::new(&self.root(), "tiny", version)?.activate()
    }

    /// Puts the generation before into place.
    fn go_back(&self) {
        let versions = store::versions(&self.root(), "tiny").unwrap();
        let before = versions.previous.unwrap();
        let prepared = store::Prepared::new(&self.root(), "tiny", before).unwrap();
        prepared.activate().unwrap();
        let now = store::versions(&self.root(), "tiny").unwrap();
        assert_eq!((now.current, now.prepared), (Some(before), None));
        assert_eq!(now.previous, versions.current);
    }

    /// Content of every file below the model's directory.
    fn published(&self) -> BTreeMap<PathBuf, Sha256> {
        tree(&self.model())
    }
}

/// Gives a store a chunk; says whether it was the right one.
fn keep(store: &Store, index: u32, stored: &[u8]) -> bundle::error::Result<bool> {
    Ok(matches!(store.keep(index, stored)?, Put::Kept))
}

/// Gives a store all chunks that it misses.
fn feed(store: &Store, media: &Media) -> u32 {
    let mut stored = Vec::new();
    let mut sent = 0;
    for (from, to) in store.inventory().unwrap() {
        for index in from..to {
            media.read_chunk(index, &mut stored).unwrap();
            keep(store, index, &stored).unwrap();
            sent += 1;
        }
    }
    sent
}

fn tree(dir: &Path) -> BTreeMap<PathBuf, Sha256> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.unwrap();
        if !entry.file_type().is_dir() {
            let relative = entry.path().strip_prefix(dir).unwrap().to_owned();
            files.insert(relative, Sha256::of(&fs::read(entry.path()).unwrap()));
        }
    }
    files
}

fn expected(content: &Content) -> BTreeMap<PathBuf, Sha256> {
    let files = content.model.iter();
    files
        .map(|(path, bytes)| (path.into(), Sha256::of(bytes)))
        .collect()
}

/// Bytes that do not repeat within or between seeds.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Three big chunks and a tail, a small file in a directory, and an empty one.
fn first_version() -> Content {
    Content::model([
        ("big.safetensors", noise(1, 3 * CHUNK + 1000)),
        ("config/config.json", b"{}".to_vec()),
        ("empty", Vec::new()),
    ])
}

#[test]
fn a_fresh_install_is_complete_with_plain_modes_and_seen_as_such() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    assert_eq!(node.install(&media), 5);
    assert_eq!(node.published(), expected(&content));
    let mode = |path: &str| fs::metadata(node.model().join(path)).unwrap().mode() & 0o777;
    assert_eq!(
        (mode(""), mode("config"), mode("empty")),
        (0o755, 0o755, 0o644)
    );
    let again = node.open(&media);
    assert!(again.in_place());
    assert_eq!(again.inventory().unwrap(), []);
    again.seal().unwrap();
    drop(again);
    node.activate(&media).unwrap();
    assert_eq!(store::names(&node.root()).unwrap(), ["tiny"]);
}

#[test]
fn nothing_is_visible_before_publish_and_an_incomplete_store_cannot_be_sealed() {
    let node = Node::new();
    let media = node.bundle("v1", &first_version());
    let store = node.open(&media);
    store.inventory().unwrap();
    let error = store.seal().unwrap_err().to_string();
    assert!(error.contains("4 of its 4 chunks are missing"), "{error}");
    feed(&store, &media);
    store.seal().unwrap();
    drop(store);
    assert!(!node.model().exists());
    node.activate(&media).unwrap();
    assert!(node.model().exists());
}

#[test]
fn a_broken_off_install_goes_on_where_it_was() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    let store = node.open(&media);
    assert_eq!(store.inventory().unwrap(), [(0, 5)]);
    let mut stored = Vec::new();
    for index in [2, 0] {
        media.read_chunk(index, &mut stored).unwrap();
        keep(&store, index, &stored).unwrap();
    }
    drop(store);
    assert_eq!(node.open(&media).inventory().unwrap(), [(1, 2), (3, 5)]);
    assert_eq!(node.install(&media), 3);
    assert_eq!(node.published(), expected(&content));
}

#[test]
fn a_sealed_store_needs_nothing_after_a_crash() {
    let node = Node::new();
    let media = node.bundle("v1", &first_version());
    let store = node.open(&media);
    feed(&store, &media);
    store.seal().unwrap();
    drop(store);
    assert_eq!(node.install(&media), 0);
}

#[test]
fn only_the_damaged_chunk_of_a_damaged_file_comes_again() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    node.install(&media);
    let untouched = fs::metadata(node.model().join("config/config.json")).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(node.model().join("big.safetensors"))
        .unwrap();
    file.write_all_at(b"damage", CHUNK as u64 + 5).unwrap();
    fs::remove_file(node.model().join("empty")).unwrap();
    let store = node.open(&media);
    assert!(!store.in_place());
    assert_eq!(store.inventory().unwrap(), [(1, 2)]);
    drop(store);
    assert_eq!(node.install(&media), 1);
    assert_eq!(node.published(), expected(&content));
    let same = fs::metadata(node.model().join("config/config.json")).unwrap();
    assert_eq!(same.ino(), untouched.ino());
}

#[test]
fn verify_finds_what_only_the_disk_changed() {
    let node = Node::new();
    let media = node.bundle("v1", &first_version());
    node.install(&media);
    assert_eq!(store::verify(&node.root(), "tiny").unwrap(), [""; 0]);
    let path = node.model().join("big.safetensors");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"bit rot", 5).unwrap();
    file.set_modified(before).unwrap();
    assert!(node.open(&media).in_place(), "size and time say nothing");
    for _ in 0..2 {
        let damaged = store::verify(&node.root(), "tiny").unwrap();
        assert_eq!(damaged, [path.display().to_string()]);
    }
    assert_eq!(node.install(&media), 1);
    assert_eq!(store::verify(&node.root(), "tiny").unwrap(), [""; 0]);
}

#[test]
fn an_update_links_what_is_equal_copies_what_is_similar_and_can_be_undone() {
    let node = Node::new();
    let old = first_version();
    let v1 = node.bundle("v1", &old);
    node.install(&v1);
    let mut new = first_version();
    new.model[0].1[CHUNK] ^= 1;
    new.model[2] = ("other".into(), b"new".to_vec());
    let v2 = node.bundle("v2", &new);
    let config = node.model().join("config/config.json");
    let inode = fs::metadata(&config).unwrap().ino();
    assert_eq!(node.install(&v2), 2, "the changed chunk and the new file");
    assert_eq!(node.published(), expected(&new));
    assert_eq!(fs::metadata(&config).unwrap().ino(), inode);

    node.go_back();
    assert_eq!(node.published(), expected(&old));
    assert!(node.open(&v1).in_place());
    node.go_back();
    assert_eq!(node.published(), expected(&new));

    store::prune(&node.root(), "tiny").unwrap();
    assert!(!node.root().join("data/.bundle").exists());
    assert!(node.open(&v2).in_place());
    assert_eq!(
        store::versions(&node.root(), "tiny").unwrap().previous,
        None
    );
    assert_eq!(node.published(), expected(&new));
}

/// A model with extra files: a tool that may be executed, and a licence that may not.
fn with_tools() -> Content {
    let mut content = Content::model([("file", noise(1, 1000))]);
    content.extra = vec![
        ("LICENCE".into(), b"as you like".to_vec(), false),
        ("bin/tool".into(), noise(2, CHUNK + 5), true),
    ];
    content
}

#[test]
fn extra_files_are_installed_verified_and_rolled_back_like_a_model() {
    let node = Node::new();
    let old = with_tools();
    let mut new = with_tools();
    new.extra[0].1 = b"as we like".to_vec();
    new.extra.pop();
    let extra = node.root().join("opt/extra");
    let mode = |path: &str| fs::metadata(extra.join(path)).unwrap().mode() & 0o777;

    let v1 = node.bundle("v1", &old);
    assert_eq!(node.install(&v1), 4);
    assert_eq!((mode("LICENCE"), mode("bin/tool")), (0o644, 0o755));
    assert!(node.open(&v1).in_place());

    assert_eq!(node.install(&node.bundle("v2", &new)), 1);
    assert!(!extra.join("bin").exists(), "the bundle owns the directory");
    node.go_back();
    assert_eq!(fs::read(extra.join("LICENCE")).unwrap(), old.extra[0].1);
    assert_eq!(mode("bin/tool"), 0o755);

    fs::write(extra.join("LICENCE"), "damage").unwrap();
    let damaged = store::verify(&node.root(), "tiny").unwrap();
    assert_eq!(damaged, [extra.join("LICENCE").display().to_string()]);
    assert_eq!(node.install(&v1), 1);
    store::prune(&node.root(), "tiny").unwrap();
    assert!(!node.root().join("opt/.bundle").exists());
}

#[test]
fn a_file_that_becomes_executable_leaves_the_generation_before_alone() {
    let node = Node::new();
    let old = with_tools();
    let mut new = with_tools();
    new.extra[0].2 = true;
    new.extra[1].2 = false;
    let mode = |path: &str| {
        let path = node.root().join("opt/extra").join(path);
        fs::metadata(path).unwrap().mode() & 0o777
    };
    node.install(&node.bundle("v1", &old));
    assert_eq!(node.install(&node.bundle("v2", &new)), 0);
    assert_eq!((mode("LICENCE"), mode("bin/tool")), (0o755, 0o644));
    node.go_back();
    assert_eq!((mode("LICENCE"), mode("bin/tool")), (0o644, 0o755));
}

#[test]
fn a_third_version_replaces_the_first_as_the_one_to_go_back_to() {
    let node = Node::new();
    let versions: Vec<Content> = (0..3)
        .map(|version| Content::model([("file", noise(version, 1000))]))
        .collect();
    for (number, content) in versions.iter().enumerate() {
        node.install(&node.bundle(&format!("v{number}"), content));
    }
    node.go_back();
    assert_eq!(node.published(), expected(&versions[1]));
}

#[test]
fn a_repair_keeps_the_generation_before() {
    let node = Node::new();
    let (old, new) = (
        Content::model([("file", noise(1, 1000))]),
        Content::model([("file", noise(2, 1000))]),
    );
    let (v1, v2) = (node.bundle("v1", &old), node.bundle("v2", &new));
    node.install(&v1);
    node.install(&v2);
    fs::write(node.model().join("file"), "damaged").unwrap();
    assert_eq!(node.install(&v2), 1);
    assert_eq!(node.published(), expected(&new));
    node.go_back();
    assert_eq!(node.published(), expected(&old));
}

#[test]
fn a_model_that_was_there_before_is_used_and_kept() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    fs::create_dir_all(node.model().join("config")).unwrap();
    fs::write(node.model().join("big.safetensors"), &content.model[0].1).unwrap();
    fs::write(node.model().join("config/config.json"), "[]").unwrap();
    fs::write(node.model().join("notes.txt"), "of the operator").unwrap();
    let before = node.published();
    assert_eq!(node.install(&media), 1);
    assert_eq!(node.published(), expected(&content));
    node.go_back();
    assert_eq!(node.published(), before);
    assert_eq!(store::installed(&node.root(), "tiny").unwrap(), None);
}

#[test]
fn leftovers_of_another_version_do_not_reach_the_new_one() {
    let node = Node::new();
    let v1 = node.bundle("v1", &first_version());
    let store = node.open(&v1);
    feed(&store, &v1);
    drop(store);
    let new = Content::model([
        ("big.safetensors", noise(1, CHUNK)),
        ("config", b"now a file".to_vec()),
    ]);
    let v2 = node.bundle("v2", &new);
    assert_eq!(node.install(&v2), 1);
    assert_eq!(node.published(), expected(&new));
}

#[test]
fn blobs_of_an_image_are_kept_by_their_content() {
    let node = Node::new();
    let mut content = Content::model([("file", noise(1, 1000))]);
    content.image = vec![b"{\"config\":1}".to_vec(), noise(7, CHUNK + 10)];
    let v1 = node.bundle("v1", &content);
    let store = node.open(&v1);
    feed(&store, &v1);
    store.seal().unwrap();
    for blob in &content.image {
        let digest = Sha256::of(blob);
        assert_eq!(&fs::read(store.blob(digest)).unwrap(), blob);
    }
    drop(store);
    node.activate(&v1).unwrap();
    let old_config = Sha256::of(&content.image[0]);
    content.image[0] = b"{\"config\":2}".to_vec();
    let v2 = node.bundle("v2", &content);
    assert_eq!(node.install(&v2), 1, "the layer is there");
    let store = node.open(&v2);
    assert!(store.in_place() && store.blob(old_config).exists());
    let old_blob = store.blob(old_config);
    fs::write(store.blob(Sha256::of(&content.image[1])), "damaged").unwrap();
    drop(store);
    assert_eq!(node.install(&v2), 2);
    store::prune(&node.root(), "tiny").unwrap();
    assert!(!old_blob.exists() && node.open(&v2).in_place());
}

#[test]
fn equal_chunks_travel_once_and_arrive_everywhere() {
    let node = Node::new();
    let twice = noise(3, CHUNK);
    let content = Content::model([("a", [twice.clone(), twice.clone()].concat()), ("b", twice)]);
    assert_eq!(node.install(&node.bundle("v1", &content)), 1);
    assert_eq!(node.published(), expected(&content));
}

#[test]
fn wrong_bytes_are_refused_and_the_store_goes_on() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    let store = node.open(&media);
    let mut stored = Vec::new();
    media.read_chunk(1, &mut stored).unwrap();
    assert!(keep(&store, 1, &stored).is_err(), "before the inventory");
    store.inventory().unwrap();
    assert!(!keep(&store, 0, &stored).unwrap());
    assert!(!keep(&store, 1, &stored[..100]).unwrap());
    stored[100] ^= 1;
    assert!(!keep(&store, 1, &stored).unwrap());
    assert_eq!(keep(&store, 99, &stored).unwrap_err().exit_code(), 10);
    assert_eq!(feed(&store, &media), 5);
    store.seal().unwrap();
}

/// A bundle like another, but with a change of its manifest.
fn forged(node: &Node, good: &Media, change: impl FnOnce(&mut Manifest)) -> Store {
    let mut manifest = good.manifest().clone();
    change(&mut manifest);
    let text = String::from_utf8(manifest.to_bytes().unwrap()).unwrap();
    Store::open(&node.root(), text).unwrap()
}

#[test]
fn a_chunk_that_is_not_what_the_manifest_promises_is_not_kept() {
    let node = Node::new();
    let media = node.bundle("v1", &first_version());
    let store = forged(&node, &media, |manifest| {
        manifest.chunks[1].blake3 = Blake3::of(b"other bytes");
    });
    store.inventory().unwrap();
    let mut stored = Vec::new();
    media.read_chunk(1, &mut stored).unwrap();
    let error = keep(&store, 1, &stored).unwrap_err();
    assert!(error.to_string().contains("promises"), "{error}");
    assert_eq!(store.inventory().unwrap(), [(0, 5)]);
}

/// Nodes check chunks only, so nothing may follow from what a manifest says of whole files.
#[test]
fn a_wrong_sha256_of_a_file_does_not_spoil_the_next_bundle() {
    let node = Node::new();
    let good = Content::model([("file", noise(1, 1000))]);
    let evil = node.bundle("evil", &Content::model([("file", noise(2, 1000))]));
    let store = forged(&node, &evil, |manifest| {
        manifest.models[0].files[0].sha256 = Sha256::of(&good.model[0].1);
    });
    assert_eq!(feed(&store, &evil), 1);
    store.seal().unwrap();
    drop(store);
    assert_eq!(node.install(&node.bundle("good", &good)), 1);
    assert_eq!(node.published(), expected(&good));
}

#[test]
fn a_file_that_changed_on_the_disk_is_not_sealed_and_comes_again() {
    let node = Node::new();
    let content = first_version();
    let media = node.bundle("v1", &content);
    let store = node.open(&media);
    feed(&store, &media);
    drop(store);
    // Opened again, the store hashes what is there; afterwards only how it looks can tell.
    let store = node.open(&media);
    assert_eq!(feed(&store, &media), 0);
    let staged = node
        .root()
        .join("data/.bundle/tiny/staging/model/big.safetensors");
    let file = fs::File::options().write(true).open(staged).unwrap();
    file.write_all_at(b"damage", 5).unwrap();
    let error = store.seal().unwrap_err();
    assert!(
        error.to_string().contains("data/model/big.safetensors"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 10);
    assert_eq!(feed(&store, &media), 4);
    store.seal().unwrap();
    drop(store);
    node.activate(&media).unwrap();
    assert_eq!(node.published(), expected(&content));
}

#[test]
fn one_process_at_a_time() {
    let node = Node::new();
    let media = node.bundle("v1", &first_version());
    let text = String::from_utf8(media.manifest_bytes().to_vec()).unwrap();
    let first = node.open(&media);
    let second = Store::open(&node.root(), text).err().unwrap();
    assert_eq!(second.exit_code(), 15);
    drop(first);
    node.open(&media);
}

#[test]
fn hostile_manifests_are_refused() {
    let node = Node::new();
    let media = node.bundle("v1", &with_tools());
    let text = String::from_utf8(media.manifest_bytes().to_vec()).unwrap();
    for (good, evil) in [
        ("\"file\"", "\"../../../etc/cron.d/x\""),
        ("\"file\"", "\"/etc/cron.d/x\""),
        ("\"/data/model\"", "\"/data/../etc\""),
        ("\"/data/model\"", "\"/etc\""),
        ("\"/opt/extra\"", "\"/usr/local/bin\""),
        ("\"/data/model\"", "\"/var/lib/bundle/other\""),
        ("\"name\":\"tiny\"", "\"name\":\"../tiny\""),
    ] {
        assert!(text.contains(good));
        let evil = text.replacen(good, evil, 1);
        assert!(Store::open(&node.root(), evil.clone()).is_err(), "{evil}");
    }
    for name in ["..", "a/b", ""] {
        assert!(store::installed(&node.root(), name).is_err());
        assert!(store::prune(&node.root(), name).is_err());
    }
    assert!(!node.root().exists());
}

#[test]
fn links_in_the_old_model_are_followed_but_never_written_through() {
    let node = Node::new();
    let content = Content::model([("a", noise(1, 1000)), ("b", noise(2, 1000))]);
    let media = node.bundle("v1", &content);
    let outside = node.0.path().join("cache");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(node.model()).unwrap();
    fs::write(outside.join("a"), &content.model[0].1).unwrap();
    fs::write(outside.join("b"), "other content").unwrap();
    for name in ["a", "b"] {
        std::os::unix::fs::symlink(outside.join(name), node.model().join(name)).unwrap();
    }
    assert_eq!(node.install(&media), 1);
    assert_eq!(node.published(), expected(&content));
    assert!(
        !fs::symlink_metadata(node.model().join("a"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(fs::read(outside.join("b")).unwrap(), b"other content");
}

#[test]
fn a_full_disk_is_named_before_anything_is_written() {
    let node = Node::new();
    let Some(_small) = Mount::tmpfs(&node.root().join("data"), "8m") else {
        eprintln!("skipped: mounting needs root");
        return;
    };
    let old = Content::model([("file", noise(2, 1000))]);
    node.install(&node.bundle("v1", &old));
    let big = node.bundle("v2", &Content::model([("file", noise(3, CHUNK))]));
    let error = node.open(&big).inventory().unwrap_err();
    assert_eq!(error.exit_code(), 13);
    assert!(error.to_string().contains("data/model/file"), "{error}");
    assert_eq!(node.published(), expected(&old));
}

/// A filesystem that is mounted until the end of a test; needs root.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let option = format!("size={size}");
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(at)
            .status();
        status.ok()?.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
