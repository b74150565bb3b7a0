//! Sets a group's consumed offsets anew. Its consumers are told, or they would go on where they are; what they report until
//! they have changed over is passed over (`consume_offsets`).

use serde_json::{Value, json};

use crate::clients::MemberConnection;
use crate::log::LogBroker;
use crate::remoting::codes::{request, response};
use crate::remoting::{Command, Fields, Reply, object_keys};
use crate::request::{Failure, Pace, check_group};

/// What is asked for.
struct Reset<'a> {
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

impl<'a> Reset<'a> {
    fn read(fields: &'a Fields) -> Result<Self, Failure> {
        let offset = match fields.get("offset") {
            None | Some("" | "-1") => None,
            Some(_) => Some(fields.number("offset")?),
        };
        Ok(Self {
            group: fields.text("group")?,
            topic: fields.text("topic")?,
            queue: fields.int_or("queueId", -1)?,
            time_ms: fields.number("timestamp")?,
            offset,
            force: fields.get("isForce").is_none() || fields.flag("isForce"),
        })
    }
}

impl LogBroker {
    pub(crate) async fn reset_group(&self, command: &Command) -> Result<Reply, Failure> {
        let reset = Reset::read(&command.head.fields)?;
        check_group(reset.group)?;
        let config = self.topic_config(reset.topic).ok_or_else(|| {
            let remark = format!("Topic {} does not exist", reset.topic);
            Failure::refused(response::TOPIC_NOT_EXIST, remark)
        })?;
        if !self.knows_group(reset.group) {
            let remark = format!("Group {} does not exist", reset.group);
            return Err(Failure::refused(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        let queues = match u32::try_from(reset.queue) {
            Ok(queue) if queue < config.read_queues => queue..queue + 1,
            Ok(queue) => {
                let remark = format!("queueId[{queue}] of topic[{}] is illegal", reset.topic);
                return Err(Failure::refused(response::INVALID_PARAMETER, remark));
            }
            Err(_) => 0..config.read_queues,
        };
        // All of them are looked at before one is changed.
        let (mut offsets, mut pace) = (Vec::new(), Pace::default());
        for queue in queues {
            pace.step().await;
            offsets.push((queue, self.target(&reset, queue).await?));
        }
        self.reset_offsets(reset.group, reset.topic, &offsets).await?;
        self.tell_reset(&reset, &offsets).await;
        let body = format!(r#"{{"offsetTable":{}}}"#, self.offset_table(reset.topic, &offsets));
        Ok(Reply::done().with_body(body))
    }

    async fn target(&self, reset: &Reset<'_>, queue: u32) -> Result<u64, Failure> {
        if let Some(wanted) = reset.offset {
            let (min, max) = (self.begin_of(reset.topic, queue)?, self.end_of(reset.topic, queue)?);
            let inside = u64::try_from(wanted).ok().filter(|wanted| (min..=max).contains(wanted));
            return inside.ok_or_else(|| {
                let remark =
                    format!("Target offset {wanted} not in consume queue range [{min}-{max}]");
                Failure::refused(response::SYSTEM_ERROR, remark)
            });
        }
        let target = if reset.time_ms < 0 {
            self.end_of(reset.topic, queue)?
        } else {
            self.first_since(reset.topic, queue, reset.time_ms).await?
        };
        let held = self.shared()?.state().offset(reset.group, reset.topic, queue);
        Ok(held.filter(|held| !reset.force && *held < target).unwrap_or(target))
    }

    fn offset_table(&self, topic: &str, offsets: &[(u32, u64)]) -> String {
        let entry =
            |(queue, offset): &(u32, u64)| (self.queue_name(topic, *queue), Value::from(*offset));
        object_keys::write(offsets.iter().map(entry))
    }

    /// Java's clients read a map whose keys are objects, the C++ client a list.
    async fn tell_reset(&self, reset: &Reset<'_>, offsets: &[(u32, u64)]) {
        if !self.clients.has_group(reset.group) {
            return;
        }
        let table = self.offset_table(reset.topic, offsets);
        let list = offsets.iter().map(|(queue, offset)| {
            json!({
                "brokerName": self.name, "offset": offset, "queueId": queue, "topic": reset.topic,
            })
        });
        let list = Value::from_iter(list);
        let time = reset.time_ms.to_string();
        let fields = [
            ("topic", reset.topic),
            ("group", reset.group),
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
        let mut connections = self.clients.connections(reset.group);
        while let Some(some) = connections.more().await {
            for MemberConnection { connection, speaker, .. } in some {
                let chunks = if speaker.is_cpp() { &of_cpp } else { &of_others };
                connection.tell(chunks.clone());
            }
        }
    }
}
