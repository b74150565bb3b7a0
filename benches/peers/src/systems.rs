//! The systems, each through its own client, connected to the node that leads where a client can know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use clap::ValueEnum;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::publisher_confirm::Confirmation;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::sleep;

/// Whatever a client of another system says.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a cluster may take to take its first append.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "bench";
/// Messages of persistent delivery, as AMQP numbers them.
const PERSISTENT: u8 = 2;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Puts of new keys.
    Etcd,
    /// A JetStream stream of three replicas, in files.
    Nats,
    /// A quorum queue with publisher confirms.
    Rabbitmq,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Nats => "nats",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// One client.
pub(crate) enum Appender {
    Etcd(etcd_client::KvClient, Arc<AtomicU64>),
    Nats(jetstream::Context),
    Rabbitmq(lapin::Channel),
}

impl Appender {
    /// Appends one message and waits for its confirmation.
    pub(crate) async fn append(&mut self, payload: Bytes) -> Result<(), Failure> {
        match self {
            Self::Etcd(client, next) => {
                let key = format!("{NAME}/{:016x}", next.fetch_add(1, Ordering::Relaxed));
                client.put(key, payload.as_ref(), None).await?;
            }
            Self::Nats(context) => {
                context.publish(NAME, payload).await?.await?;
            }
            Self::Rabbitmq(channel) => {
                let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
                let options = BasicPublishOptions::default();
                let published =
                    channel.basic_publish("".into(), NAME.into(), options, &payload, properties);
                match published.await?.await? {
                    Confirmation::Ack(None) => {}
                    other => return Err(format!("not confirmed: {other:?}").into()),
                }
            }
        }
        Ok(())
    }
}

/// So many clients of one connection, once the system takes appends.
pub(crate) async fn connect(
    system: System,
    addrs: &[String],
    clients: usize,
) -> Result<Vec<Appender>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = match system {
            System::Etcd => etcd(addrs, clients).await,
            System::Nats => nats(addrs, clients).await,
            System::Rabbitmq => rabbitmq(addrs, clients).await,
        };
        let failure = match connected {
            Ok(mut appenders) => match appenders.first_mut() {
                None => return Ok(appenders),
                Some(first) => match first.append(Bytes::from_static(b"first")).await {
                    Ok(()) => return Ok(appenders),
                    Err(failure) => failure,
                },
            },
            Err(failure) => failure,
        };
        if Instant::now() > deadline {
            return Err(failure);
        }
        // paced: the system tells nobody when it is ready.
        sleep(Duration::from_millis(250)).await;
    }
}

async fn etcd(addrs: &[String], clients: usize) -> Result<Vec<Appender>, Failure> {
    for addr in addrs {
        let mut client = etcd_client::Client::connect([addr], None).await?;
        let status = client.status().await?;
        let own = status.header().map(|header| header.member_id());
        if own == Some(status.leader()) {
            // Keys of an earlier round are not written again.
            let revision = status.header().map_or(0, |header| header.revision());
            let next = Arc::new(AtomicU64::new((revision as u64) << 24));
            let appender = |_| Appender::Etcd(client.kv_client(), Arc::clone(&next));
            return Ok((0..clients).map(appender).collect());
        }
    }
    Err("no node leads".into())
}

async fn nats(addrs: &[String], clients: usize) -> Result<Vec<Appender>, Failure> {
    let first = addrs.first().ok_or("no address")?;
    let context = jetstream::new(async_nats::connect(first).await?);
    let config = jetstream::stream::Config {
        name: NAME.to_owned(),
        subjects: vec![NAME.to_owned()],
        num_replicas: 3,
        storage: jetstream::stream::StorageType::File,
        ..jetstream::stream::Config::default()
    };
    let mut stream = context.get_or_create_stream(config).await?;
    let cluster = stream.info().await?.cluster.clone().ok_or("the stream has one replica")?;
    // Servers are named by their address.
    let leader = cluster.leader.ok_or("the stream has no leader")?;
    let leader = addrs.iter().find(|addr| **addr == leader).ok_or("the leader is unknown")?;
    let context = jetstream::new(async_nats::connect(leader).await?);
    Ok((0..clients).map(|_| Appender::Nats(context.clone())).collect())
}

async fn rabbitmq(addrs: &[String], clients: usize) -> Result<Vec<Appender>, Failure> {
    let first = addrs.first().ok_or("no address")?;
    let uri = format!("amqp://{first}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(3));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    // Its leader is the node that it is declared on.
    let channel = connection.create_channel().await?;
    channel.queue_declare(NAME.into(), options, arguments).await?;
    let mut appenders = Vec::with_capacity(clients);
    for _ in 0..clients {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        appenders.push(Appender::Rabbitmq(channel));
    }
    // The connection lives as long as its channels.
    Ok(appenders)
}
