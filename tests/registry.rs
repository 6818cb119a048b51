//! Images from a real `docker-registry` that a real `skopeo` has filled.

#![cfg(test)]

#[path = "support/cache.rs"]
mod cache;
#[path = "support/gate.rs"]
mod gate;
#[path = "support/oci.rs"]
mod oci;
#[path = "support/registry.rs"]
mod registry;
#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use cache::Cache;
use gate::Gate;
use oci::{Picture, check, image, layer};
use registry::{PASSWORD, Registry, USER};

/// `bundle pack` of an image as `out` below a directory. No login of this machine counts.
fn pack(dir: &Path, reference: &str, out: &str) -> Command {
    fs::create_dir_all(dir).unwrap();
    let spec = dir.join(format!("{out}.toml"));
    fs::write(
        &spec,
        format!("name = \"t\"\n[image]\nref = \"{reference}\"\n"),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bundle"));
    command
        .arg("pack")
        .arg(spec)
        .args(["--volume-size", "30M", "-o"])
        .arg(dir.join(out))
        .env("HOME", dir)
        .env("DOCKER_CONFIG", dir)
        .env("REGISTRY_AUTH_FILE", dir.join("auth.json"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// The exit code and what was said.
fn fail(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn tags_digests_and_mirrors_in_every_form_that_skopeo_pushes() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new(
        "amd64",
        vec![
            layer("usr/bin/ray", 9_000_000),
            layer("etc/x", 10),
            layer("etc/x", 10),
        ],
    );
    for (number, form) in [
        &["--format", "v2s2"][..],
        &["--format", "oci"],
        &["--format", "oci", "--dest-compress-format", "zstd"],
    ]
    .iter()
    .enumerate()
    {
        let name = format!("org/app:{number}");
        registry.push(&picture.write(dir.path()), &name, form);
        let out = format!("by-tag-{number}");
        succeed(pack(dir.path(), &registry.name(&name), &out));
        check(&dir.path().join(out), &picture);
    }
    let tag = image(&dir.path().join("by-tag-0"));
    let digest = tag["registry_digest"].as_str().unwrap();
    assert_eq!(digest, registry.digest("org/app:0"));
    assert_eq!(tag["facts"]["ray"], "of unknown version");

    let by_digest = registry.name(&format!("org/app@{digest}"));
    succeed(pack(dir.path(), &by_digest, "by-digest"));
    check(&dir.path().join("by-digest"), &picture);

    // Nobody listens at port 9; the bundle keeps the name of the image.
    let mut mirrored = pack(dir.path(), "org/app:0", "mirrored");
    mirrored.args([
        "--registry-mirror",
        "127.0.0.1:9",
        "--registry-mirror",
        &registry.url(),
    ]);
    succeed(mirrored);
    check(&dir.path().join("mirrored"), &picture);
    assert_eq!(
        image(&dir.path().join("mirrored"))["reference"],
        "org/app:0"
    );

    let (code, said) = fail(pack(dir.path(), &registry.name("org/app:none"), "absent"));
    assert!(
        code == 1 && said.contains("it has no org/app:none"),
        "{said}"
    );
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn of_several_platforms_the_wished_one_is_taken() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let amd64 = Picture::new("amd64", vec![layer("a", 100)]);
    let arm64 = Picture::new("arm64", vec![layer("b", 100)]);
    registry.push(
        &oci::index(dir.path(), &[&arm64, &amd64]),
        "multi:1",
        &["--all"],
    );
    succeed(pack(dir.path(), &registry.name("multi:1"), "one"));
    check(&dir.path().join("one"), &amd64);
    assert_eq!(
        image(&dir.path().join("one"))["registry_digest"],
        registry.digest("multi:1")
    );

    let mut other = pack(dir.path(), &registry.name("multi:1"), "other");
    let spec = dir.path().join("other.toml");
    let more = fs::read_to_string(&spec).unwrap();
    fs::write(&spec, more.clone() + "platform = \"linux/arm64\"\n").unwrap();
    let output = other.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    check(&dir.path().join("other"), &arm64);

    let none = pack(dir.path(), &registry.name("multi:1"), "none");
    fs::write(
        dir.path().join("none.toml"),
        more + "platform = \"linux/s390x\"\n",
    )
    .unwrap();
    let (code, said) = fail(none);
    assert!(
        code == 2 && said.contains("it is for linux/arm64, linux/amd64"),
        "{said}"
    );
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn logins_of_docker_podman_and_helpers_are_used() {
    use base64::Engine as _;
    let registry = Registry::start(Some((USER, PASSWORD)));
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new("amd64", vec![layer("a", 100)]);
    registry.push(&picture.write(dir.path()), "team/app:1", &[]);
    let name = registry.name("team/app:1");
    let host = registry.host();
    let auths = |password: &str| {
        let coded = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        format!(r#"{{"auths":{{"{host}":{{"auth":"{coded}"}}}}}}"#)
    };
    let docker = |kind: &str| dir.path().join(kind).join("config.json");
    for kind in ["none", "wrong", "docker", "helper", "store", "podman"] {
        fs::create_dir_all(dir.path().join(kind)).unwrap();
    }
    fs::write(docker("wrong"), auths("other")).unwrap();
    fs::write(docker("docker"), auths(PASSWORD)).unwrap();
    fs::write(
        docker("helper"),
        format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#),
    )
    .unwrap();
    fs::write(docker("store"), r#"{"credsStore":"test"}"#).unwrap();
    fs::write(dir.path().join("podman/auth.json"), auths(PASSWORD)).unwrap();
    let helper = dir.path().join("docker-credential-test");
    let answer = format!(r#"{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    fs::write(
        &helper,
        format!("#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] && echo '{answer}'\n"),
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );

    let with = |kind: &str| {
        let mut command = pack(&dir.path().join(kind), &name, "out");
        command.env("PATH", &path);
        command
    };
    for kind in ["docker", "helper", "store", "podman"] {
        succeed(with(kind));
        check(&dir.path().join(kind).join("out"), &picture);
    }
    let (code, said) = fail(with("none"));
    assert!(
        code == 1 && said.contains(&format!("docker login {host}")),
        "{said}"
    );
    let (code, said) = fail(with("wrong"));
    assert!(
        code == 1 && said.contains("config.json may not read team/app:1"),
        "{said}"
    );
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn a_wrong_blob_is_refused_and_takes_none_along() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new("amd64", vec![layer("a", 5_000_000), layer("b", 5_000_000)]);
    registry.push(&picture.write(dir.path()), "app:1", &[]);
    let blobs = registry.blobs("app:1");
    let path = registry.blob_path(&blobs[1]);
    let right = fs::read(&path).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let half = right.len() / 2;
    let mut torn = right.clone();
    torn[half] ^= 0x55;

    for bytes in [&wrong, &torn] {
        fs::write(&path, bytes).unwrap();
        let (code, said) = fail(pack(dir.path(), &registry.name("app:1"), "out"));
        assert_eq!(code, 10, "{said}");
        assert!(
            said.contains(&format!("blob {} of app arrived from", blobs[1])),
            "{said}"
        );
        assert!(!dir.path().join("out/bundle.json").exists());
    }
    fs::write(&path, &right).unwrap();
    succeed(pack(dir.path(), &registry.name("app:1"), "out"));
    check(&dir.path().join("out"), &picture);
    assert_eq!(
        registry.reads(&blobs[0]),
        2,
        "the first layer, in two pieces, once"
    );
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn a_killed_pack_fetches_no_complete_layer_again() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let layers = ["a", "b", "c"].map(|name| layer(name, 18_000_000)).to_vec();
    let picture = Picture::new("amd64", layers);
    registry.push(&picture.write(dir.path()), "app:1", &[]);
    let name = registry.name("app:1");
    succeed(pack(dir.path(), &name, "whole"));
    let blobs = registry.blobs("app:1");
    let once = registry.reads(&blobs[0]);

    let out = dir.path().join("out");
    let journal = out.join(".pack/journal");
    let mut child = pack(dir.path(), &name, "out").spawn().unwrap();
    // The first layer is complete, and perhaps more.
    while !fs::read_to_string(&journal)
        .unwrap_or_default()
        .contains("\"end\"")
    {
        assert!(child.try_wait().unwrap().is_none(), "it was too fast");
        thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("bundle.json").exists(), "it was too fast");

    // The tag moves meanwhile; what was begun is finished.
    let other = Picture::new("amd64", vec![layer("other", 100)]);
    registry.push(&other.write(dir.path()), "app:1", &[]);
    succeed(pack(dir.path(), &name, "out"));
    check(&out, &picture);
    assert_eq!(
        registry.reads(&blobs[0]),
        2 * once,
        "in the first two runs only"
    );
    same(&out, &dir.path().join("whole"));
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn a_pack_killed_inside_of_a_layer_goes_on_inside_of_it() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    // 18 pieces of 4 MiB to fetch.
    let picture = Picture::new("amd64", vec![layer("usr/bin/ray", 74_000_000)]);
    let layout = picture.write(dir.path());
    registry.push(&layout, "gzip:1", &[]);
    registry.push(&layout, "plain:1", &["--preserve-digests"]);
    for image in ["gzip:1", "plain:1"] {
        let name = registry.name(image);
        let whole = format!("{image}-whole");
        succeed(pack(dir.path(), &name, &whole));
        let blob = &registry.blobs(image)[0];
        let once = registry.reads(blob);

        kill_inside(dir.path(), &name, image);
        let before = registry.reads(blob);
        succeed(pack(dir.path(), &name, image));
        let again = registry.reads(blob) - before;
        // Three chunks of 16 MiB, of which no more than one piece is fetched again.
        assert!(
            again <= once - 11,
            "{again} of {once} pieces of {image} were fetched again"
        );
        check(&dir.path().join(image), &picture);
        same(&dir.path().join(image), &dir.path().join(whole));
    }
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn a_killed_pack_goes_on_inside_of_a_layer_that_comes_whole_where_a_range_was_asked() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new("amd64", vec![layer("usr/bin/ray", 74_000_000)]);
    registry.push(&picture.write(dir.path()), "app:1", &[]);
    let blob = &registry.blobs("app:1")[0];
    let cache = Cache::start(&registry.host());
    let name = format!("{}/app:1", cache.host());
    succeed(pack(dir.path(), &name, "whole"));

    kill_inside(dir.path(), &name, "out");
    cache.requests(blob);
    succeed(pack(dir.path(), &name, "out"));
    assert_eq!(cache.requests(blob).1, 1);
    check(&dir.path().join("out"), &picture);
    same(&dir.path().join("out"), &dir.path().join("whole"));
}

/// Packs until three places to go on at are known, and no further.
fn kill_inside(dir: &Path, name: &str, out: &str) {
    let journal = dir.join(out).join(".pack/journal");
    let points = || {
        let lines = fs::read_to_string(&journal).unwrap_or_default();
        lines.matches("\"point\"").count()
    };
    let mut child = pack(dir, name, out).spawn().unwrap();
    while points() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it was too fast");
        thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let finished = dir.join(out).join("bundle.json");
    assert!(!finished.exists(), "it was too fast");
}

/// Both directories hold the same files.
fn same(one: &Path, other: &Path) {
    for file in fs::read_dir(one).unwrap() {
        let path = file.unwrap().path();
        let twin = other.join(path.file_name().unwrap());
        assert!(
            fs::read(&path).unwrap() == fs::read(twin).unwrap(),
            "{}",
            path.display()
        );
    }
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn tokens_are_fetched_renewed_and_shown_to_nobody_else() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new("amd64", vec![layer("a", 9_000_000), layer("b", 9_000_000)]);
    registry.push(&picture.write(dir.path()), "app:1", &[]);
    // Each token is good for three requests; what it opens is on another origin.
    let gate = Gate::start(&registry.host(), 3);
    for (out, config, kind) in [
        ("anonymous", "{}".to_owned(), "GET -"),
        (
            "password",
            format!(
                r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#,
                gate.host()
            ),
            "GET Basic dXNlcjpwYXNz",
        ),
        (
            "identity",
            format!(
                r#"{{"auths":{{"{}":{{"identitytoken":"id"}}}}}}"#,
                gate.host()
            ),
            "POST -",
        ),
    ] {
        fs::write(dir.path().join("config.json"), config).unwrap();
        succeed(pack(dir.path(), &format!("{}/app:1", gate.host()), out));
        check(&dir.path().join(out), &picture);
        let asked = gate.token_requests();
        assert!(asked.len() > 1, "{asked:?}");
        assert!(
            asked.iter().all(|request| request.starts_with(kind)),
            "{asked:?}"
        );
        assert!(
            asked
                .iter()
                .all(|request| request.contains("repository%3Aapp%3Apull")),
            "{asked:?}"
        );
    }
    assert_eq!(gate.leaks(), 0);
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn blobs_that_come_whole_where_a_range_was_asked_are_taken_in_one_stream() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    // Seven pieces, one piece, and two.
    let layers = [("a", 27_000_000), ("b", 1_000_000), ("c", 5_000_000)];
    let layers = layers.map(|(name, len)| layer(name, len)).to_vec();
    let picture = Picture::new("amd64", layers);
    registry.push(&picture.write(dir.path()), "app:1", &[]);
    let blobs = registry.blobs("app:1");
    let cache = Cache::start(&registry.host());
    let name = format!("{}/app:1", cache.host());
    succeed(pack(dir.path(), &name, "out"));
    check(&dir.path().join("out"), &picture);
    let (ranged, whole) = cache.requests(&blobs[0]);
    assert!(ranged <= 7 && whole == 1, "{ranged} and {whole} requests");
    assert_eq!(cache.requests(&blobs[1]), (1, 0));

    // A stream that breaks off is taken up where it was.
    cache.break_off(&blobs[0], 3, 9_000_000);
    succeed(pack(dir.path(), &name, "broken"));
    check(&dir.path().join("broken"), &picture);
    assert_eq!(cache.requests(&blobs[0]).1, 4);

    // All bytes are checked, whatever way they came.
    let path = registry.blob_path(&blobs[0]);
    let mut wrong = fs::read(&path).unwrap();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&path, wrong).unwrap();
    let (code, said) = fail(pack(dir.path(), &name, "wrong"));
    let words = format!("blob {} of app arrived from", blobs[0]);
    assert!(code == 10 && said.contains(&words), "{said}");
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn of_a_new_image_on_the_same_model_only_new_layers_are_fetched_and_carried() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(
        model.join("a.safetensors"),
        weights::Random(9).bytes(3_000_000),
    )
    .unwrap();
    let pack = |tag: &str, out: &str| {
        let mut command = pack(dir.path(), &registry.name(tag), out);
        let spec = dir.path().join(format!("{out}.toml"));
        let text = fs::read_to_string(&spec).unwrap();
        fs::write(
            &spec,
            text + "[[model]]\nrepo = \"o/m\"\npath = \"/data/m\"\n",
        )
        .unwrap();
        command.arg("--model-dir").arg(&model);
        command
    };
    let mut layers = vec![layer("base", 6_000_000), layer("old", 2_000_000)];
    let old = Picture::new("amd64", layers.clone());
    registry.push(&old.write(dir.path()), "app:1", &[]);
    succeed(pack("app:1", "v1"));
    check(&dir.path().join("v1"), &old);

    layers[1] = layer("new", 1_000_000);
    let new = Picture::new("amd64", layers);
    registry.push(&new.write(dir.path()), "app:2", &[]);
    let blobs = registry.blobs("app:2");
    let before = registry.reads(&blobs[0]);
    let mut command = pack("app:2", "v2");
    command.arg("--base").arg(dir.path().join("v1"));
    succeed(command);
    check(&dir.path().join("v2"), &new);
    assert_eq!(
        registry.reads(&blobs[0]),
        before,
        "a layer that the far side has"
    );
    assert!(registry.reads(&blobs[1]) > 0);
    let volume = fs::metadata(dir.path().join("v2/vol-0001.tar"))
        .unwrap()
        .len();
    assert!((1_000_000..1_020_000).contains(&volume), "{volume} bytes");
    assert!(!dir.path().join("v2/vol-0002.tar").exists());
}

#[test]
#[ignore = "needs docker-registry and skopeo: make test"]
fn files_and_directories_that_skopeo_writes_are_packed() {
    let registry = Registry::start(None);
    let dir = tempfile::tempdir().unwrap();
    let picture = Picture::new("amd64", vec![layer("a", 100_000), layer("b", 10)]);
    let other = Picture::new("amd64", vec![layer("c", 10)]);
    for (tag, picture) in [("app:1", &picture), ("app:2", &other)] {
        registry.push(&picture.write(dir.path()), tag, &[]);
    }
    // A directory with two images: the one of the spec is taken.
    registry.pull(
        "app:2",
        &format!("oci:{}/oci:app:2", dir.path().display()),
        &[],
    );
    for (kind, path) in [
        ("oci", "oci:app:1"),
        ("oci-archive", "oci.tar:app:1"),
        ("docker-archive", "docker.tar:app:1"),
    ] {
        registry.pull(
            "app:1",
            &format!("{kind}:{}/{path}", dir.path().display()),
            &[],
        );
        let (file, _) = path.split_once(':').unwrap();
        let mut command = pack(dir.path(), "app:1", kind);
        command.arg("--image-tar").arg(dir.path().join(file));
        succeed(command);
        check(&dir.path().join(kind), &picture);
    }
}
