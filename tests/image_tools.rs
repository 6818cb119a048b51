//! Images as a real docker 20.10 and a real podman save them, packed from their files and from the
//! daemon.

#![cfg(test)]

#[path = "support/oci.rs"]
mod oci;
#[allow(dead_code, reason = "only the dockerd of the origin is needed")]
#[path = "support/testbed.rs"]
mod testbed;
#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use oci::{Picture, check, check_layers, image, layer};
use testbed::{Testbed, text};

const NAME: &str = "example/app:1";

/// Runs a program in a directory; it must go well.
fn run(dir: &Path, environment: &[(&str, &str)], line: &str) -> String {
    let mut words = line.split_whitespace();
    let output: Output = Command::new(words.next().unwrap())
        .args(words)
        .current_dir(dir)
        .env("HOME", dir)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    text(&output)
}

/// A picture with a repeated layer, which docker 20.10 saves as a link, as a file for `docker load`.
fn picture(dir: &Path) -> Picture {
    let layers = vec![layer("a", 3_000_000), layer("b", 10), layer("b", 10)];
    let picture = Picture::new("amd64", layers);
    let layout = picture.write(dir);
    let layout = layout.strip_prefix(dir).unwrap().display();
    run(
        dir,
        &[],
        &format!("skopeo copy --insecure-policy oci:{layout} docker-archive:in.tar:{NAME}"),
    );
    picture
}

fn spec(dir: &Path, image: &str) {
    fs::write(
        dir.join("bundle.toml"),
        format!("name = \"t\"\n[image]\n{image}\n"),
    )
    .unwrap();
}

#[test]
#[ignore = "needs root and the test bed: make test"]
fn what_docker_20_10_saves_is_packed_from_a_file_and_from_the_daemon() {
    let bed = Testbed::up("image-tools", &["0"]);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let picture = picture(dir);
    let docker = [("DOCKER_HOST", bed.variable("DOCKER_HOST"))];
    run(dir, &docker, "docker load -i in.tar");
    run(dir, &docker, &format!("docker save -o saved.tar {NAME}"));

    spec(dir, "");
    let pack = format!("{} pack", env!("CARGO_BIN_EXE_bundle"));
    run(
        dir,
        &docker,
        &format!("{pack} --image-tar saved.tar -o file"),
    );
    check(&dir.join("file"), &picture);
    spec(dir, &format!("ref = \"{NAME}\""));
    run(dir, &docker, &format!("{pack} --image-daemon -o daemon"));
    check(&dir.join("daemon"), &picture);
    for out in ["file", "daemon"] {
        assert_eq!(image(&dir.join(out))["reference"], NAME, "{out}");
    }
}

#[test]
#[ignore = "needs root and podman: make test"]
fn what_podman_saves_is_packed_in_both_its_forms() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let picture = picture(dir);
    let podman = "podman --root storage --runroot run --storage-driver vfs";
    run(dir, &[], &format!("{podman} load -i in.tar"));
    for form in ["docker-archive", "oci-archive"] {
        run(
            dir,
            &[],
            &format!("{podman} save --format {form} -o {form}.tar {NAME}"),
        );
        spec(dir, "");
        let pack = format!("{} pack", env!("CARGO_BIN_EXE_bundle"));
        run(
            dir,
            &[],
            &format!("{pack} --image-tar {form}.tar -o {form}"),
        );
        // Podman writes a config of its own.
        check_layers(&dir.join(form), &picture);
        assert_eq!(
            image(&dir.join(form))["reference"],
            format!("docker.io/{NAME}")
        );
    }
}
