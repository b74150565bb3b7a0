//! A `start` that runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Ended, quorumlog, run, run_with_input};

/// `start` of a single node on ports that the system chooses.
pub(crate) fn start(id: u64, data: &Path, more: &[&str]) -> Command {
    let mut command = quorumlog();
    let any = "127.0.0.1:0";
    command.args(["start", "--listen", any, "--client-listen", any, "--http-listen", any]);
    command.args(["--node-id", &id.to_string()]).args(more).arg("--data-dir").arg(data);
    command
}

/// A `start` that runs. Dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Where its first node serves clients.
    pub(crate) client: String,
    http: String,
    /// Where it listens for other nodes.
    pub(crate) peers: String,
    /// The lines of its standard error.
    said: mpsc::Receiver<String>,
}

impl Running {
    /// `start --dev` with its data in `dir`, once it serves.
    pub(crate) fn dev(dir: &Path) -> Self {
        let mut command = quorumlog();
        command.args(["start", "--dev", "--free-ports", "--data"]).arg(dir);
        let mut running = Self::spawn(command);
        running.wait_for("Ctrl-C stops all three");
        let config = std::fs::read_to_string(dir.join("node-1.toml")).expect("config");
        let config: toml::Table = config.parse().expect("toml");
        let listen = |section: &str| config[section]["listen"].as_str().expect(section).to_owned();
        (running.client, running.http) = (listen("server"), listen("http"));
        running
    }

    /// A single node on ports that the system chooses, once it serves.
    pub(crate) fn node(id: u64, data: &Path, more: &[&str]) -> Self {
        let mut running = Self::spawn(start(id, data, more));
        let line = running.wait_for("node started");
        let field = |name: &str| {
            let value =
                line.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            value.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
        };
        running.peers = field("peers");
        (running.client, running.http) = (field("clients"), field("http"));
        running
    }

    /// Any `start`.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        let (client, http, peers) = Default::default();
        Self { child, client, http, peers, said }
    }

    /// Waits until it says a line with `what` in it, and gives that line.
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.said.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("never said {what:?}, but {seen:#?}"),
            }
        }
    }

    /// Runs a command against it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run(args.iter().chain(&["--node", self.client.as_str()]))
    }

    /// The same with this on standard input.
    pub(crate) fn append(&self, args: &[&str], input: &str) -> Ended {
        run_with_input(args.iter().chain(&["--node", self.client.as_str()]), input)
    }

    /// Status line and body.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.http).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("writes");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reads");
        let (head, body) = text.split_once("\r\n\r\n").expect("head");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// Stops it with SIGTERM, and gives its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().expect("ends").code()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
