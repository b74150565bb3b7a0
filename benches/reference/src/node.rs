//! A node: a listener, a file, and what was counted.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::follower::follow;
use crate::journal::Journal;
use crate::leader::Leader;
use crate::records::{HELLO, Purpose, invalid};

/// How long a new connection may take to say what it is for.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the followers may take to listen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node has to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` to listen on.
    pub listen: String,
    /// Where the two followers listen. A node without followers is one.
    pub followers: Vec<String>,
    /// An existing directory for its file.
    pub data: PathBuf,
    /// A record counts as held by a node once its disk has it; else once the page cache has it.
    pub sync: bool,
    /// Length of the file, over which it writes in a circle. It is written once before it is used.
    pub journal: u64,
}

/// What a node did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flushes of the file.
    pub flushes: u64,
    /// Bytes written to it.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Sync,
    Async,
}

/// What the threads of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) flush: Flush,
    journal: Mutex<Option<Journal>>,
    flushes: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn create(config: &Config) -> io::Result<Self> {
        let journal = Journal::create(&config.data.join("journal"), config.journal.max(1))?;
        Ok(Self {
            flush: if config.sync { Flush::Sync } else { Flush::Async },
            journal: Mutex::new(Some(journal)),
            flushes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// The file is for one thread.
    pub(crate) fn take_journal(&self) -> io::Result<Journal> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
        journal.ok_or_else(|| io::Error::other("another connection writes the file"))
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        Counts {
            flushes: self.flushes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Runs a node on the calling thread, as long as the listener works.
///
/// # Errors
/// The port is taken, the file cannot be made, or the followers cannot be reached.
pub fn run(config: &Config) -> io::Result<()> {
    let listener = TcpListener::bind(&config.listen)?;
    serve(&listener, config)
}

pub(crate) fn serve(listener: &TcpListener, config: &Config) -> io::Result<()> {
    let shared = Arc::new(Shared::create(config)?);
    let leader = match config.followers.as_slice() {
        [] => None,
        followers => Some(Leader::start(&shared, followers, CONNECT_TIMEOUT)?),
    };
    loop {
        let (stream, _) = listener.accept()?;
        let (shared, leader) = (Arc::clone(&shared), leader.clone());
        thread("connection", move || {
            // Whoever is at the other end sees the end of the connection.
            let _: io::Result<()> = connection(&shared, leader.as_deref(), stream);
        })?;
    }
}

fn connection(shared: &Arc<Shared>, leader: Option<&Leader>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut hello = [0; HELLO];
    (&stream).read_exact(&mut hello)?;
    stream.set_read_timeout(None)?;
    match (Purpose::of_hello(hello)?, leader) {
        (Purpose::Counts, _) => {
            let Counts { flushes, bytes } = shared.counts();
            (&stream).write_all(&flushes.to_le_bytes())?;
            (&stream).write_all(&bytes.to_le_bytes())
        }
        (Purpose::Append, Some(leader)) => leader.serve(stream),
        (Purpose::Follow, None) => follow(shared, &stream),
        _ => Err(invalid("this node has the other part")),
    }
}

pub(crate) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}
