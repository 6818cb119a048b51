//! Asking the person at the terminal, never a pipe: secrets must not come from standard input.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::ssh::Prompt;

/// Asks on the controlling terminal.
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn ask(&self, question: &str, echo: bool) -> Option<String> {
        let mut terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let before = tcgetattr(&terminal).ok()?;
        if !echo {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            tcsetattr(&terminal, OptionalActions::Flush, &quiet).ok()?;
        }
        // Not before: what is typed until the echo is off is dropped.
        write!(terminal, "{question} ").ok()?;
        let mut answer = String::new();
        let read = BufReader::new(&terminal).read_line(&mut answer);
        if !echo {
            // A terminal that went away needs no echo.
            let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
            let _ = writeln!(terminal);
        }
        match read {
            Ok(length) if length > 0 => Some(answer.trim_end_matches(['\r', '\n']).to_owned()),
            _ => None,
        }
    }
}
