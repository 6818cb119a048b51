//! `bundle pack` as a process: killed at random moments, and in other surroundings.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

#[path = "support/weights.rs"]
mod weights;

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");

/// A spec, a model of noise and weights and two extra files: 11 chunks in at least 4 volumes.
fn inputs(root: &Path) {
    let model = root.join("model");
    fs::create_dir_all(&model).unwrap();
    let noise = weights::Random(3).bytes(17 << 20);
    let bf16 = weights::bf16(&weights::weights(5, 1 << 20));
    for (name, shift) in [("a.bin", 1), ("b.bin", 2), ("c.bin", 3)] {
        let bytes: Vec<u8> = noise.iter().map(|byte| byte ^ shift).collect();
        fs::write(model.join(name), bytes).unwrap();
    }
    for number in 0..3 {
        fs::write(
            model.join(format!("{number}.safetensors")),
            &bf16[number * 100..],
        )
        .unwrap();
    }
    let tools = root.join("tools");
    fs::create_dir_all(&tools).unwrap();
    fs::write(tools.join("LICENCE"), "Do as you like.\n").unwrap();
    fs::write(tools.join("driver.run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tools.join("driver.run"), Permissions::from_mode(0o755)).unwrap();
    let spec = "name = \"t\"\n[[model]]\nrepo = \"o/m\"\npath = \"/data/m\"\npickle = true\n\
                [[file]]\nsource = \"tools\"\npath = \"/opt/tools\"\n";
    fs::write(root.join("bundle.toml"), spec).unwrap();
}

fn pack(root: &Path, out: &Path) -> Command {
    let mut command = Command::new(BUNDLE);
    command
        .arg("pack")
        .arg(root.join("bundle.toml"))
        .arg("--model-dir")
        .arg(root.join("model"))
        .args(["--volume-size", "20M", "-o"])
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// Names and bytes of a bundle.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            (path.file_name().unwrap().into(), bytes)
        })
        .collect()
}

/// Bytes in all volumes, complete or not.
fn packed(out: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(out) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vol-"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Kills the process once the volumes hold so many bytes; false when it was done before.
fn kill_at(mut child: Child, out: &Path, bytes: u64) -> bool {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if packed(out) >= bytes {
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_pack_killed_at_random_moments_ends_the_same() {
    let root = tempfile::tempdir().unwrap();
    inputs(root.path());
    let whole = root.path().join("whole");
    succeed(pack(root.path(), &whole));
    let expected = content(&whole);
    let size = packed(&whole);

    let mut random = weights::Random(0x6b69_6c6c);
    let mut kills = 0;
    for round in 0..6 {
        let out = root.path().join(format!("{round}"));
        // Each pack is killed several times on its way.
        while !out.join("bundle.json").exists() {
            let more = packed(&out) + random.bits() % (size / 2);
            let child = pack(root.path(), &out).spawn().unwrap();
            kills += usize::from(kill_at(child, &out, more));
        }
        if out.join(".pack").exists() {
            succeed(pack(root.path(), &out));
        }
        assert!(content(&out) == expected, "round {round}");
        fs::remove_dir_all(&out).unwrap();
    }
    assert!(kills >= 6, "only {kills} kills");
}

/// A pack with recovery volumes.
fn pack_with_parity(root: &Path, out: &Path) -> Command {
    let mut command = pack(root, out);
    command.args(["--parity", "7.5%"]);
    command
}

/// Whether recovery volumes are being made.
fn makes_parity(out: &Path) -> bool {
    out.join("par-0001.tar.part").exists()
}

#[test]
fn recovery_volumes_depend_on_nothing_but_the_volumes() {
    let root = tempfile::tempdir().unwrap();
    inputs(root.path());
    let (whole, plain) = (root.path().join("whole"), root.path().join("plain"));
    let mut command = pack_with_parity(root.path(), &whole);
    command.args(["--jobs", "1"]);
    succeed(command);
    let expected = content(&whole);
    assert!(expected.contains_key(Path::new("par-0001.tar")));

    // Killed while they are made; then only they are made again.
    let out = root.path().join("out");
    let mut kills = 0;
    while kills < 3 && !out.join("bundle.json").exists() {
        let mut child = pack_with_parity(root.path(), &out).spawn().unwrap();
        while !makes_parity(&out) && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_millis(kills * 15));
        child.kill().unwrap();
        kills += u64::from(!child.wait().unwrap().success());
    }
    assert!(kills > 0);
    succeed(pack_with_parity(root.path(), &out));
    assert!(content(&out) == expected);

    // A pack that goes on without them removes what was made.
    fs::remove_file(out.join("bundle.json")).unwrap();
    succeed(pack(root.path(), &plain));
    let mut without = pack(root.path(), &out);
    without.arg("--fresh");
    succeed(without);
    assert!(content(&out) == content(&plain));
}

#[test]
fn surroundings_do_not_change_the_bundle() {
    let root = tempfile::tempdir().unwrap();
    inputs(root.path());
    let (one, other) = (root.path().join("one"), root.path().join("a b/other"));
    let again = root.path().join("again");
    inputs(&again);
    fs::set_permissions(again.join("model/a.bin"), Permissions::from_mode(0o600)).unwrap();
    let mut command = pack(root.path(), &one);
    command
        .args(["--jobs", "1"])
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    succeed(command);

    let mut inner = pack(&again, &other);
    inner.args(["--jobs", "5"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("LC_ALL", "de_DE.UTF-8")
        .env("TZ", "Asia/Tokyo")
        .current_dir("/");
    succeed(command);
    assert!(content(&one) == content(&other));
}

#[test]
fn ctrl_c_says_how_to_go_on() {
    let root = tempfile::tempdir().unwrap();
    inputs(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    succeed(pack(root.path(), &whole));

    // It may be done before the signal arrives; then once more.
    let output = loop {
        let _ = fs::remove_dir_all(&out);
        let mut child = pack(root.path(), &out).spawn().unwrap();
        while packed(&out) == 0 && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            break output;
        }
    };
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("same command again"), "{text}");

    succeed(pack(root.path(), &out));
    assert!(content(&out) == content(&whole));
}

#[test]
fn a_limit_on_the_size_of_files_is_told_before_the_system_kills() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let wanted = pack(dir.path(), &dir.path().join("out"));
    // In blocks of 512 bytes: 10 MB.
    let limited = "ulimit -f 20000 && exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited]).arg(wanted.get_program());
    let output = command.args(wanted.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("beyond 10240000 bytes"), "{said}");
    assert!(said.contains("ulimit -f unlimited"), "{said}");
}

/// Stands for FAT32, which not every kernel knows: with blocks of 1 KiB, ext2 takes files of 16 GiB.
#[test]
#[ignore = "needs root"]
fn volumes_that_the_filesystem_cannot_take_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(dir.path());
        assert!(command.status().unwrap().success(), "{script}");
    };
    sh("truncate -s 64M image; mkfs.ext2 -q -b 1024 image; mkdir mnt; mount -o loop image mnt");
    let mut command = Command::new(BUNDLE);
    command.args("pack --model-dir model --volume-size 20G -o mnt/out".split(' '));
    let output = command.current_dir(dir.path()).output().unwrap();
    sh("umount mnt");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let expected = "files in mnt/out cannot have 20000000000 bytes (FAT32 takes less than 4 GiB)";
    assert!(said.contains(expected), "{said}");
}

/// Packs a model of this shape for a target; status and what was said.
fn pack_for(target: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let model = root.join("model");
    fs::create_dir_all(&model).unwrap();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configs");
    fs::copy(configs.join("qwen2.5-0.5b.json"), model.join("config.json")).unwrap();
    fs::write(model.join("model.safetensors"), [7; 1000]).unwrap();
    let spec = format!(
        "name = \"t\"\n[[model]]\nrepo = \"o/m\"\npath = \"/data/m\"\n[cluster]\ntarget = \"{target}\"\n"
    );
    fs::write(root.join("bundle.toml"), spec).unwrap();
    let output = pack(root, &root.join("out")).output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        // Without a hosts.txt, `plan` is about the target.
        let plan = Command::new(BUNDLE)
            .arg("plan")
            .arg(root.join("out"))
            .current_dir(root)
            .output()
            .unwrap();
        said += &String::from_utf8_lossy(&plan.stdout);
    } else {
        assert!(!root.join("out/bundle.json").exists());
    }
    (output.status.code(), said)
}

#[test]
fn what_cannot_work_on_the_target_is_refused_before_anything_is_packed() {
    for (target, code, expected) in [
        (
            "1x2xT4",
            0,
            "tensor parallel 2 x pipeline parallel 1, executor mp, dtype float16",
        ),
        (
            "1x4xT4",
            2,
            "tensor_parallel = 2 with pipeline_parallel = 1 would work",
        ),
        ("30x1xA100", 2, "more than the model's 24 layers"),
        ("1x2xT9", 2, "known are t4"),
        ("2xT4", 2, "not of the form"),
    ] {
        let (found, said) = pack_for(target);
        assert_eq!(found, Some(code), "{target}: {said}");
        assert!(said.contains(expected), "{target}: {said}");
    }
}

#[test]
fn code_of_a_model_travels_only_when_the_server_trusts_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let model = root.join("model");
    fs::create_dir_all(&model).unwrap();
    let config = r#"{"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}"#;
    fs::write(model.join("config.json"), config).unwrap();
    fs::write(model.join("modeling_x.py"), "import os\n").unwrap();
    fs::write(model.join("model.safetensors"), [7; 1000]).unwrap();
    // What stands in the spec, words of pack, words of inspect and of the sheet.
    for (out, keys, said, inspected, sheet) in [
        (
            "default",
            "",
            &["left out modeling_x.py", "config.json names modeling_x.py,"][..],
            "code  none",
            "none",
        ),
        (
            "trusted",
            "[cluster]\nserve_args = [\"--trust-remote-code\"]",
            &["takes along modeling_x.py"],
            "code  modeling_x.py",
            "<code>modeling_x.py</code>",
        ),
    ] {
        let spec = format!("name = \"t\"\n[[model]]\nrepo = \"o/m\"\npath = \"/data/m\"\n{keys}\n");
        fs::write(root.join("bundle.toml"), spec).unwrap();
        let output = pack(root, &root.join(out)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(said.iter().all(|words| text.contains(words)), "{text}");
        let inspect = |arguments: &[&str]| {
            let mut command = Command::new(BUNDLE);
            command.arg("inspect").arg(root.join(out)).args(arguments);
            let output = command.current_dir(root).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(inspect(&[]).contains(inspected), "{}", inspect(&[]));
        inspect(&["--html", "sheet.html"]);
        let page = fs::read_to_string(root.join("sheet.html")).unwrap();
        let row = format!("<th>Can run code</th><td>{sheet}</td>");
        assert!(page.contains(&row), "{page}");
    }
}
