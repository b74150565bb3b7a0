//! A follower: reads, writes, flushes and answers, in one thread.

use std::io::Write;
use std::net::TcpStream;
use std::{io, sync::Arc};

use crate::node::{Flush, Shared};
use crate::records::{Inbox, verify};

/// Follows the leader at the other end of `stream` until it goes.
pub(crate) fn follow(shared: &Arc<Shared>, mut stream: &TcpStream) -> io::Result<()> {
    let mut journal = shared.take_journal()?;
    let mut inbox = Inbox::new();
    let mut held = 0;
    while inbox.receive(stream)? {
        let run = verify(inbox.bytes())?;
        if run.count == 0 {
            continue;
        }
        journal.write(&inbox.bytes()[..run.bytes])?;
        shared.wrote(run.bytes);
        if shared.flush == Flush::Sync {
            journal.flush()?;
            shared.flushed();
        }
        held += run.bytes as u64;
        stream.write_all(&held.to_le_bytes())?;
        inbox.consume(run.bytes);
    }
    Ok(())
}
