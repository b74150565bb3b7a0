//! One client's connection: what is read of it, and what it is told.

use std::sync::Mutex;

use quorumlog::seam::{TcpTransport, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::super::listener::{Bounds, addr_of, listen};
use super::super::places::Places;
use super::*;
use crate::remoting::{Fields, Reply};

/// Answers with so many bytes, or never.
struct Fixed {
    answer: Option<usize>,
    /// Requests that came, by connection.
    taken: Mutex<std::collections::BTreeMap<u64, usize>>,
}

impl Service for Fixed {
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: PendingRequest,
    ) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        *self.taken.lock().expect("no panic").entry(connection.number).or_default() += 1;
        Box::pin(async move {
            let Some(bytes) = self.answer else {
                let _held = request;
                return std::future::pending().await;
            };
            // As a pull does before it reads.
            let _room = connection.out().share().reserve(bytes).await;
            Some(Reply::done().with_body(vec![0; bytes]).encode(&request.command))
        })
    }

    fn closed(&self, _connection: &Connection) {}
}

struct Listening {
    service: Arc<Fixed>,
    budgets: Arc<Budgets>,
    addr: SocketAddr,
    _stop: watch::Sender<bool>,
}

impl Listening {
    async fn start(answer: Option<usize>, connections_max: usize, config: BrokerConfig) -> Self {
        let service = Arc::new(Fixed { answer, taken: Mutex::default() });
        let listening = TcpTransport.bind_for_clients("127.0.0.1:0");
        let listener = listening.await.expect("a free port");
        let addr = addr_of(&*listener).expect("an address");
        let (stop, stopping) = watch::channel(false);
        let budgets = Arc::new(Budgets::new(&config));
        let bounds = Bounds {
            budgets: Arc::clone(&budgets),
            places: Places::new(connections_max),
            idle_timeout: config.idle_timeout,
            numbers: Arc::default(),
        };
        let shared = Arc::<Fixed>::clone(&service);
        tokio::spawn(listen(listener, shared, bounds, stopping));
        Self { service, budgets, addr, _stop: stop }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("it listens")
    }

    fn taken(&self) -> usize {
        self.service.taken.lock().expect("no panic").values().sum()
    }

    /// How many requests were taken, once that stays the same.
    async fn settled(&self) -> usize {
        let mut before = usize::MAX;
        loop {
            let now = self.taken();
            if now == before {
                return now;
            }
            before = now;
            // paced: what is still on its way through the sockets arrives meanwhile.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

fn request(body: usize) -> Vec<u8> {
    let mut command = Command::request(11, 1, Fields::default());
    command.body = vec![0; body].into();
    command.encode().concat()
}

/// Asks for something and reads the answer, within a time that no queue of others may use up.
async fn ask(stream: &mut TcpStream) -> usize {
    let asking = async {
        stream.write_all(&request(0)).await.expect("it takes it");
        let length = stream.read_u32().await.expect("an answer") as usize;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await.expect("all of it");
        length
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("an answer in time")
}

/// Writes requests for as long as they are taken.
fn flood(
    mut stream: TcpStream,
    request: Vec<u8>,
    count: usize,
) -> tokio::task::JoinHandle<TcpStream> {
    tokio::spawn(async move {
        for _ in 0..count {
            if stream.write_all(&request).await.is_err() {
                break;
            }
        }
        stream
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_no_answers_are_given_few_and_others_do_not_notice() {
    const ANSWER: usize = 256 << 10;
    let config = BrokerConfig { answer_bytes_max: 16 << 20, ..BrokerConfig::default() };
    let listening = Listening::start(Some(ANSWER), 100, config).await;
    let mut other = listening.connect().await;
    let mut floods = Vec::new();
    for _ in 0..8 {
        floods.push(flood(listening.connect().await, request(0), 2_000));
    }
    for _ in 0..100 {
        assert!(ask(&mut other).await > ANSWER);
    }
    listening.settled().await;
    let taken = listening.service.taken.lock().expect("no panic").clone();
    // Requests that wait for room hold none of it: that many answers were made, and no more.
    let made = listening.budgets.answers.used();
    assert!(made <= (32 << 20) + ANSWER, "{made} bytes wait in answers to {taken:?}");
    assert!(made > 0, "nobody takes them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_answered_yet_are_taken_up_to_a_number_of_bytes() {
    const BODY: usize = 1 << 20;
    let config = BrokerConfig { request_bytes_max: 8 << 20, ..BrokerConfig::default() };
    let listening = Listening::start(None, 100, config).await;
    let mut floods = Vec::new();
    for _ in 0..4 {
        floods.push(flood(listening.connect().await, request(BODY), 100));
    }
    let taken = listening.settled().await;
    // Beside the begins of the next four, seven or eight fit, as the four come.
    assert!((7..=16).contains(&taken), "{taken} MiB are under way, and 8 may be, or 16 in part");
    // A client that has nothing under way still gets an answer.
    let mut small = listening.connect().await;
    small.write_all(&request(100)).await.expect("it takes it");
    while listening.taken() == taken {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_lock_nobody_out_and_end_in_time() {
    let config = BrokerConfig { idle_timeout: Duration::from_secs(3), ..BrokerConfig::default() };
    let listening = Listening::start(Some(10), 20, config).await;
    let mut busy = listening.connect().await;
    ask(&mut busy).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(listening.connect().await);
    }
    for _ in 0..5 {
        let mut newcomer = listening.connect().await;
        ask(&mut newcomer).await;
    }
    ask(&mut busy).await;
    // All that are left end by themselves.
    for mut stream in idle {
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_u8());
        end.await.expect("it ends").expect_err("nothing was asked for");
    }
}

#[tokio::test]
async fn a_connection_with_many_requests_lets_others_have_their_turn() {
    const REQUESTS: usize = 2000;
    // As pulls do, none of them is answered.
    let listening = Listening::start(None, 10, BrokerConfig::default()).await;
    let mut client = listening.connect().await;
    client.write_all(&request(0).repeat(REQUESTS)).await.expect("all fits");
    let (mut before, mut most) = (0, 0);
    while before < REQUESTS {
        tokio::task::yield_now().await;
        let now = listening.taken();
        most = most.max(now - before);
        before = now;
    }
    assert!(most <= 64, "{most} requests in one turn");
}

/// Small requests that came in one read held what their connections waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_requests_that_came_together_wait_for_no_room() {
    const REQUESTS: usize = 250;
    let config = BrokerConfig { request_bytes_max: 256 << 10, ..BrokerConfig::default() };
    let listening = Listening::start(Some(10), 100, config).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = listening.connect().await;
        stream.write_all(&request(0).repeat(REQUESTS)).await.expect("all fits");
        streams.push(stream);
    }
    let answers = async {
        for stream in &mut streams {
            for _ in 0..REQUESTS {
                let length = stream.read_u32().await.expect("an answer") as usize;
                stream.read_exact(&mut vec![0; length]).await.expect("all of it");
            }
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(20), answers).await;
    let taken = listening.taken();
    answered.unwrap_or_else(|_| panic!("{taken} of {} were taken", 40 * REQUESTS));
    assert_eq!(listening.budgets.requests.used(), 0, "nothing is left of them");
}

/// What one read brings mostly ends within a frame, and that one was finished with all that came behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_has_begun_is_finished_and_no_more_is_read_without_room() {
    const LIMIT: usize = 1 << 20;
    let config = BrokerConfig { request_bytes_max: LIMIT, ..BrokerConfig::default() };
    let listening = Listening::start(None, 100, config).await;
    let mut floods = Vec::new();
    for _ in 0..2 {
        floods.push(flood(listening.connect().await, request(1000), 20_000));
    }
    listening.settled().await;
    let used = listening.budgets.requests.used();
    assert!((LIMIT / 2..LIMIT + (256 << 10)).contains(&used), "{used} bytes are held");
}
