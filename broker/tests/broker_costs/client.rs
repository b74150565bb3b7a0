//! A client that costs little itself.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Buf as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::costs::{KIB, MEMORY};
use crate::requests::frame;

/// A connection that keeps nothing of an answer but its code.
pub(crate) struct Client {
    stream: TcpStream,
    header: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        Self { stream, header: Vec::with_capacity(64 * KIB) }
    }

    /// Code and remark of the next answer, and bytes of its body.
    pub(crate) async fn answer(&mut self) -> (i64, String, usize) {
        loop {
            let mut lengths = [0; 8];
            let read =
                tokio::time::timeout(Duration::from_secs(60), self.stream.read_exact(&mut lengths));
            read.await.expect("an answer in time").expect("an answer");
            let header = (&lengths[4..]).get_u32() as usize;
            let mut left = (&lengths[..]).get_u32() as usize - 4 - header;
            self.header.resize(header, 0);
            self.stream.read_exact(&mut self.header).await.expect("a header");
            let body = left;
            let mut room = [0; 4 * KIB];
            while left > 0 {
                let step = left.min(room.len());
                left -= self.stream.read(&mut room[..step]).await.expect("a body");
            }
            let head: Value = serde_json::from_slice(&self.header).expect("JSON");
            if head["flag"].as_i64() == Some(1) {
                let remark = head["remark"].as_str().unwrap_or_default().to_owned();
                return (head["code"].as_i64().expect("a code"), remark, body);
            }
        }
    }

    pub(crate) async fn call(&mut self, frame: &[u8]) -> (i64, String, usize) {
        self.stream.write_all(frame).await.expect("it is taken");
        self.answer().await
    }

    /// `call`, and by how much the memory of the process grew meanwhile.
    pub(crate) async fn peak_of(&mut self, frame: &[u8]) -> (i64, String, usize, usize) {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let (code, remark, bytes) = self.call(frame).await;
        (code, remark, bytes, MEMORY.peak_usage().saturating_sub(before))
    }

    /// How many of so many requests are refused, as those are that find no room to wait. A question behind them says
    /// when all have come.
    pub(crate) async fn refused_of(&mut self, waiting: &[u8], count: usize) -> usize {
        for _ in 0..count {
            self.stream.write_all(waiting).await.expect("it is taken");
        }
        let question = frame(30, &[("topic", "W"), ("queueId", "0")], b"");
        self.stream.write_all(&question).await.expect("it is taken");
        for refused in 0.. {
            match self.answer().await.0 {
                0 => return refused,
                code => assert_eq!(code, 2),
            }
        }
        unreachable!("it is answered")
    }

    /// Many requests, of which none may fail.
    pub(crate) async fn all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut under_way = 0;
        for frame in frames {
            self.stream.write_all(&frame).await.expect("it is taken");
            under_way += 1;
            if under_way == 256 {
                for _ in 0..std::mem::take(&mut under_way) {
                    let (code, remark, _) = self.answer().await;
                    assert_eq!(code, 0, "{remark}");
                }
            }
        }
        for _ in 0..under_way {
            let (code, remark, _) = self.answer().await;
            assert_eq!(code, 0, "{remark}");
        }
    }
}
