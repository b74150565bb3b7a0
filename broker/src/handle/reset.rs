//! Sets a group's consumed offsets anew. Its consumers are told, or they would go on where they are; what they report until
//! they have changed over is passed over (`consume_offsets`).

use serde_json::{Value, json};

use super::groups::knows_group;
use crate::clients::{Clients, MemberConnection};
use crate::log::{ConsumeOffsets, Replica, Topics};
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Fields, Reply, object_keys};
use crate::request::{Failure, Pace, check_group};

/// Sets a group's offsets of a topic.
pub(super) struct ResetGroup<'a> {
    group: &'a str,
    topic: &'a str,
    /// One queue; all if it is negative.
    queue: i32,
    /// Below 0: behind the last message.
    time_ms: i64,
    /// If given, this rather than a time. For all queues only our own tool gives it.
    offset: Option<i64>,
    /// False: only back.
    force: bool,
}

impl<'a> ResetGroup<'a> {
    pub(super) fn read(command: &'a Command) -> Result<Self, Failure> {
        let fields = &command.head.fields;
        let offset = match fields.get("offset") {
            None | Some("" | "-1") => None,
            Some(_) => Some(fields.number("offset")?),
        };
        let reset = Self {
            group: fields.text("group")?,
            topic: fields.text("topic")?,
            queue: fields.int_or("queueId", -1)?,
            time_ms: fields.number("timestamp")?,
            offset,
            force: fields.get("isForce").is_none() || fields.flag("isForce"),
        };
        check_group(reset.group)?;
        Ok(reset)
    }

    pub(super) async fn run(
        self,
        replica: &Replica,
        topics: &Topics,
        clients: &Clients,
        consumed: &ConsumeOffsets,
    ) -> Result<Reply, Failure> {
        let config = topics.topic_config(self.topic).ok_or_else(|| {
            let remark = format!("Topic {} does not exist", self.topic);
            Failure::refused(response::TOPIC_NOT_EXIST, remark)
        })?;
        if !knows_group(clients, topics, self.group) {
            let remark = format!("Group {} does not exist", self.group);
            return Err(Failure::refused(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        let queues = match u32::try_from(self.queue) {
            Ok(queue) if queue < config.read_queues => queue..queue + 1,
            Ok(queue) => {
                let remark = format!("queueId[{queue}] of topic[{}] is illegal", self.topic);
                return Err(Failure::refused(response::INVALID_PARAMETER, remark));
            }
            Err(_) => 0..config.read_queues,
        };
        // All of them are looked at before one is changed.
        let (mut offsets, mut pace) = (Vec::new(), Pace::default());
        for queue in queues {
            pace.step().await;
            offsets.push((queue, self.target(replica, queue).await?));
        }
        consumed.reset(self.group, self.topic, &offsets).await?;
        self.tell(replica, clients, &offsets).await;
        let body = format!(r#"{{"offsetTable":{}}}"#, self.offset_table(replica, &offsets));
        Ok(Reply::done().with_body(body))
    }

    async fn target(&self, replica: &Replica, queue: u32) -> Result<u64, Failure> {
        if let Some(wanted) = self.offset {
            let (min, max) =
                (replica.begin_of(self.topic, queue)?, replica.end_of(self.topic, queue)?);
            let inside = u64::try_from(wanted).ok().filter(|wanted| (min..=max).contains(wanted));
            return inside.ok_or_else(|| {
                let remark =
                    format!("Target offset {wanted} not in consume queue range [{min}-{max}]");
                Failure::refused(response::SYSTEM_ERROR, remark)
            });
        }
        let target = if self.time_ms < 0 {
            replica.end_of(self.topic, queue)?
        } else {
            replica.first_since(self.topic, queue, self.time_ms).await?
        };
        let held = replica.shared()?.state().offset(self.group, self.topic, queue);
        Ok(held.filter(|held| !self.force && *held < target).unwrap_or(target))
    }

    fn offset_table(&self, replica: &Replica, offsets: &[(u32, u64)]) -> String {
        let entry = |(queue, offset): &(u32, u64)| {
            (replica.queue_name(self.topic, *queue), Value::from(*offset))
        };
        object_keys::write(offsets.iter().map(entry))
    }

    /// Java's clients read a map whose keys are objects, the C++ client a list.
    async fn tell(&self, replica: &Replica, clients: &Clients, offsets: &[(u32, u64)]) {
        if !clients.has_group(self.group) {
            return;
        }
        let table = self.offset_table(replica, offsets);
        let list = offsets.iter().map(|(queue, offset)| {
            json!({
                "brokerName": replica.name, "offset": offset, "queueId": queue, "topic": self.topic,
            })
        });
        let list = Value::from_iter(list);
        let time = self.time_ms.to_string();
        let fields = [
            ("topic", self.topic),
            ("group", self.group),
            ("timestamp", time.as_str()),
            ("isForce", "true"),
            ("queueId", "-1"),
        ];
        let fields: Fields = fields.into_iter().collect();
        let command = Command::request(request::RESET_CONSUMER_CLIENT_OFFSET, 0, fields).oneway();
        // Each text once, however many members there are.
        let chunks = |table: String| {
            let mut command = command.clone();
            command.body = format!(r#"{{"offsetTable":{table}}}"#).into();
            command.encode()
        };
        let (of_cpp, of_others) = (chunks(list.to_string()), chunks(table));
        let mut connections = clients.connections(self.group);
        while let Some(some) = connections.more().await {
            for MemberConnection { connection, speaker, .. } in some {
                let chunks = if speaker.is_cpp() { &of_cpp } else { &of_others };
                connection.tell(chunks.clone());
            }
        }
    }
}
