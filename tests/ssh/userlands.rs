//! Nodes with an old or odd userland: the agent needs no more than a place to run.

use bundle::agent::facts::Question;
use bundle::agent::protocol::{Answer, Request};
use bundle::agent::start::{Executable, remote};
use bundle::ssh::Node;

use crate::sshd::{GUEST, Sshd};
use crate::{connect, failure};

/// Starts an agent and asks it for facts; the user id that it runs as.
fn agent_on(sshd: &Sshd, node: &Node) -> bundle::error::Result<String> {
    let executable = Executable::open(env!("CARGO_BIN_EXE_bundle").as_ref())?;
    let (link, _place) = remote(connect(sshd, node)?, &executable)?;
    let facts = link.call(Request::Facts(Question {
        address: "127.0.0.1".parse().unwrap(),
        paths: Vec::new(),
        ports: Vec::new(),
        containers: true,
    }))?;
    assert!(matches!(facts, Answer::Facts(_)), "{facts:?}");
    let Answer::Exited(exited) = link.call(Request::Exec {
        argv: vec!["id".into(), "-u".into()],
        stdin: String::new(),
        timeout: 60,
    })?
    else {
        panic!("no answer of `id`");
    };
    Ok(exited.stdout.trim().to_owned())
}

fn guest(sshd: &Sshd) -> Node {
    Node {
        user: Some(GUEST.into()),
        ..sshd.node()
    }
}

#[test]
#[ignore = "needs root"]
fn every_login_shell_will_do_however_talkative() {
    // What each runs even when it is not interactive.
    let talk = "printf 'Welcome '";
    let shells = [
        ("/bin/dash", ".profile", talk),
        ("/bin/bash", ".bashrc", talk),
        ("/bin/csh", ".cshrc", talk),
        ("/bin/tcsh", ".tcshrc", talk),
        ("/bin/zsh", ".zshenv", talk),
        ("/usr/bin/fish", ".config/fish/config.fish", talk),
        ("/opt/ash", ".profile", talk),
    ];
    for (shell, file, line) in shells {
        let sshd = Sshd::start_with_guest(
            "",
            shell,
            &format!(
                "mount -t tmpfs tmpfs /opt; ln -s /bin/busybox /opt/ash
                 mkdir -p $(dirname /home/{GUEST}/{file}); echo \"{line}\" >/home/{GUEST}/{file}
                 chown -R {GUEST} /home/{GUEST}"
            ),
        );
        let id = agent_on(&sshd, &guest(&sshd)).unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert_eq!(id, "1234", "{shell}");
    }
}

#[test]
#[ignore = "needs root"]
fn busybox_is_enough_of_a_userland() {
    let root = "$1/root";
    let sshd = Sshd::start_in(
        "ChrootDirectory /srv",
        &format!(
            "mkdir -p {root}/bin {root}/proc {root}/dev {root}/tmp {root}/root {root}/var/lib {root}/etc {root}/opt
             cp /bin/busybox {root}/bin/; for applet in $(busybox --list); do [ -e {root}/bin/$applet ] || ln -s busybox {root}/bin/$applet; done
             sed 's,^root:.*,root:x:0:0::/root:/bin/sh,' /etc/passwd >{root}/etc/passwd
             mount --bind {root}/etc/passwd /etc/passwd
             mount -t proc proc {root}/proc; mount -t tmpfs -o mode=755 tmpfs {root}/dev
             mknod -m 666 {root}/dev/null c 1 3
             for dir in tmp root var/lib opt; do mount -t tmpfs -o noexec tmpfs {root}/$dir; done
             mkdir {root}/dev/shm; mount --rbind {root} /srv"
        ),
    );
    let node = sshd.node();
    let session = connect(&sshd, &node).unwrap();
    let busybox = session
        .run("look", "ls -l /bin/sh; ls /usr 2>/dev/null; true")
        .unwrap();
    assert!(busybox.contains("-> busybox"), "{busybox}");
    assert_eq!(agent_on(&sshd, &node).unwrap(), "0");
    let places = session
        .run("look", "echo /*/bundle-*/bin/* /dev/shm/*/bin/*")
        .unwrap();
    assert!(places.contains("/dev/shm/bundle-0/bin/bundle-"), "{places}");
}

#[test]
#[ignore = "needs root"]
fn a_node_that_runs_nothing_anywhere_says_so() {
    let nowhere = "for dir in /var/lib/bundle /root /opt /dev/shm /run; do
        mkdir -p $dir; mount -t tmpfs -o noexec,mode=755 tmpfs $dir; done
        mkdir /run/sshd; mount --bind /tmp /tmp; mount -o remount,bind,noexec /tmp";
    let sshd = Sshd::start_in("", nowhere);
    let (message, code) = failure(agent_on(&sshd, &sshd.node()));
    assert!(
        message.contains("no directory takes an executable"),
        "{message}"
    );
    assert_eq!(code, 1);
}

#[test]
#[ignore = "needs root"]
fn command_lines_stay_short() {
    // Far below the 32 KiB that a small kernel gives arguments and environment together.
    let sshd = Sshd::start_with_guest(
        "",
        "/opt/strict",
        "mount -t tmpfs tmpfs /opt
         printf '#!/bin/sh\\n[ ${#2} -lt 4096 ] || exit 99\\nexec /bin/sh \"$@\"\\n' >/opt/strict
         chmod 755 /opt/strict",
    );
    assert_eq!(agent_on(&sshd, &guest(&sshd)).unwrap(), "1234");
}

#[test]
#[ignore = "needs root"]
fn sudo_makes_root_without_a_terminal() {
    for (rule, outcome) in [
        ("NOPASSWD: ALL", Ok("0")),
        ("ALL", Err("sudo does not work without a password")),
        ("NOPASSWD: ALL\\nDefaults requiretty", Err("requiretty")),
    ] {
        let sshd = Sshd::start_with_guest(
            "",
            "/bin/sh",
            &format!(
                "mkdir -p /etc/sudoers.d; mount -t tmpfs tmpfs /etc/sudoers.d
                 printf '{GUEST} ALL=(ALL) {rule}\\n' >$1/sudoers; chmod 440 $1/sudoers
                 mount --bind $1/sudoers /etc/sudoers"
            ),
        );
        let node = Node {
            sudo: true,
            ..guest(&sshd)
        };
        match (agent_on(&sshd, &node), outcome) {
            (Ok(id), Ok(expected)) => assert_eq!(id, expected),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (result, _) => panic!("{rule}: {result:?}"),
        }
    }
}
