//! What a client says it is, every 30 s: the groups that it is in and what they subscribe to. All but its id may be missing,
//! and kinds may be names or numbers (L4, L5).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::limits::{
    CLIENT_BYTES_MAX, EXPRESSION_BYTES_MAX, GROUPS_OF_CLIENT_MAX, STORED_TOPIC_BYTES_MAX,
    SUBSCRIPTIONS_OF_GROUP_MAX, TAGS_MAX,
};
use crate::record::java_hash;
use crate::remoting::codes::response;
use crate::request::{Failure, check_group};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Heartbeat {
    #[serde(rename = "clientID")]
    pub(crate) client_id: String,
    consumer_data_set: Option<Vec<ConsumerData>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConsumerData {
    pub(crate) group_name: String,
    consume_type: Value,
    message_model: Value,
    consume_from_where: Value,
    subscription_data_set: Option<Vec<SubscriptionData>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SubscriptionData {
    pub(crate) topic: String,
    sub_string: Option<String>,
    sub_version: Value,
    code_set: Option<Vec<Value>>,
    expression_type: Option<String>,
}

/// What a group's members say of how they consume, in RocketMQ's names. The last one who says it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kind {
    pub(crate) consume_type: &'static str,
    pub(crate) message_model: &'static str,
    pub(crate) from_where: &'static str,
}

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) version: i64,
    /// Hashes of the tags that are wanted; empty for all.
    pub(crate) tags: BTreeSet<i32>,
    /// As the group said it.
    pub(crate) expression: String,
    /// The number of the connection that said it.
    pub(crate) brought_by: u64,
}

fn too_much(remark: impl Into<String>) -> Failure {
    Failure::refused(response::INVALID_PARAMETER, remark)
}

fn check_count(what: &str, count: usize, limit: usize) -> Result<(), Failure> {
    if count <= limit {
        return Ok(());
    }
    Err(too_much(format!("{count} {what} in a heartbeat, and the limit is {limit}")))
}

impl Heartbeat {
    /// Checks that nothing in it is over a limit, before anything of it is kept.
    ///
    /// # Errors
    /// What is.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.client_id.is_empty() {
            return Err(Failure::refused(response::SYSTEM_ERROR, "a heartbeat without clientID"));
        }
        check_client(&self.client_id)?;
        let groups = self.consumer_data_set.as_deref().unwrap_or_default();
        check_count("groups", groups.len(), GROUPS_OF_CLIENT_MAX)?;
        for group in groups {
            check_group(&group.group_name)?;
            let topics = group.subscription_data_set.as_deref().unwrap_or_default();
            check_count("subscriptions of a group", topics.len(), SUBSCRIPTIONS_OF_GROUP_MAX)?;
            for topic in topics {
                topic.check()?;
            }
        }
        Ok(())
    }

    /// The groups that it is in.
    pub(crate) fn groups(self) -> impl Iterator<Item = ConsumerData> {
        self.consumer_data_set.into_iter().flatten()
    }
}

/// Checks a client's id.
///
/// # Errors
/// It is too long.
pub(crate) fn check_client(id: &str) -> Result<(), Failure> {
    if id.len() <= CLIENT_BYTES_MAX {
        return Ok(());
    }
    Err(too_much(format!(
        "a client's id of {} bytes, and the limit is {CLIENT_BYTES_MAX}",
        id.len()
    )))
}

impl ConsumerData {
    pub(crate) fn kind(&self) -> Kind {
        let from_where = [
            "CONSUME_FROM_LAST_OFFSET",
            "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
            "CONSUME_FROM_MIN_OFFSET",
            "CONSUME_FROM_MAX_OFFSET",
            "CONSUME_FROM_FIRST_OFFSET",
            "CONSUME_FROM_TIMESTAMP",
        ];
        let types = ["CONSUME_ACTIVELY", "CONSUME_PASSIVELY", "CONSUME_POP"];
        Kind {
            consume_type: named(&self.consume_type, &types, "CONSUME_PASSIVELY"),
            message_model: named(
                &self.message_model,
                &["BROADCASTING", "CLUSTERING"],
                "CLUSTERING",
            ),
            from_where: named(&self.consume_from_where, &from_where, from_where[0]),
        }
    }

    /// What it subscribes to by tags. Other expressions are refused before, where clients ask (46).
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &SubscriptionData> {
        let all = self.subscription_data_set.iter().flatten();
        all.filter(|data| {
            data.expression_type.as_deref().is_none_or(|kind| matches!(kind, "TAG" | ""))
        })
    }
}

impl SubscriptionData {
    fn check(&self) -> Result<(), Failure> {
        if self.topic.len() > STORED_TOPIC_BYTES_MAX {
            let bytes = self.topic.len();
            return Err(too_much(format!(
                "a subscription's topic of {bytes} bytes, and the limit is {STORED_TOPIC_BYTES_MAX}"
            )));
        }
        check_count(
            "tags of a subscription",
            self.code_set.as_ref().map_or(0, Vec::len),
            TAGS_MAX,
        )?;
        check_expression(self.sub_string.as_deref().unwrap_or_default())
    }

    /// As a connection says it.
    pub(crate) fn read(&self, connection: u64) -> Subscription {
        let codes = self.code_set.iter().flatten().filter_map(number);
        let mut tags: BTreeSet<i32> = codes.filter_map(|code| i32::try_from(code).ok()).collect();
        let expression = self.sub_string.clone().unwrap_or_else(|| "*".to_owned());
        if tags.is_empty() {
            tags = tags_of(&expression);
        }
        Subscription { version: self.version(), tags, expression, brought_by: connection }
    }

    pub(crate) fn version(&self) -> i64 {
        number(&self.sub_version).unwrap_or(0)
    }
}

/// About the memory that a subscription to a topic takes.
pub(crate) fn cost_of(topic: &str, subscription: &Subscription) -> usize {
    192 + topic.len() + subscription.expression.len() + 8 * subscription.tags.len()
}

fn tags_in(expression: &str) -> impl Iterator<Item = &str> {
    expression.split("||").map(str::trim).filter(|tag| !tag.is_empty())
}

/// Checks what a subscription wants.
///
/// # Errors
/// It is too long.
pub(crate) fn check_expression(expression: &str) -> Result<(), Failure> {
    let (bytes, tags) = (expression.len(), tags_in(expression).count());
    if bytes <= EXPRESSION_BYTES_MAX && tags <= TAGS_MAX {
        return Ok(());
    }
    Err(too_much(format!(
        "a subscription of {tags} tags in {bytes} bytes, and the limits are {TAGS_MAX} and {EXPRESSION_BYTES_MAX}"
    )))
}

/// Hashes of the tags in `TagA || TagB`; empty for `*`.
pub(crate) fn tags_of(expression: &str) -> BTreeSet<i32> {
    if tags_in(expression).any(|tag| tag == "*") {
        return BTreeSet::new();
    }
    tags_in(expression).map(java_hash).collect()
}

/// One of `names`, which is given by name or by number.
fn named(value: &Value, names: &[&'static str], default: &'static str) -> &'static str {
    let by_name = value.as_str().and_then(|name| names.iter().find(|known| **known == name));
    let by_number = || names.get(usize::try_from(number(value)?).ok()?);
    by_name.or_else(by_number).copied().unwrap_or(default)
}

/// A number, whether it is written as one or as text.
fn number(value: &Value) -> Option<i64> {
    let float = || value.as_f64().map(|number| number as i64);
    value.as_i64().or_else(float).or_else(|| value.as_str()?.trim().parse().ok())
}
