//! Which code is answered by what, and what each request may touch. Messages and pulls, which come often, are told apart
//! before (`dispatch`).

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::clients::{ConsumerList, HeartBeat, Unregister, check_client_config};
use super::consumed::{QueryConsumerOffset, UpdateConsumerOffset};
use super::groups::{AllGroups, ConsumeStats, ConsumerConnections, GroupsOfTopic, TopicsOfGroup};
use super::locks::{LockQueues, UnlockQueues};
use super::offsets::{MaxOffset, MinOffset, SearchOffset};
use super::query::Query;
use super::reset::ResetGroup;
use super::runtime_info::runtime_info;
use super::send::SendBack;
use super::topics::{DecideTopic, DeleteTopic, PutTopic, TopicSettings, TopicStats};
use crate::log::LogBroker;
use crate::net::Connection;
use crate::remoting::codes::request;
use crate::remoting::{Command, Reply};
use crate::request::Failure;

/// A request, who sent it, and the broker of a log that this node leads.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) broker: &'a LogBroker,
    pub(super) connection: &'a Arc<Connection>,
    pub(super) command: &'a Command,
}

type Answer = Result<Reply, Failure>;

/// How a request is answered.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// At once.
    Now(for<'a> fn(Asked<'a>) -> Answer),
    /// It may wait.
    Later(for<'a> fn(Asked<'a>) -> BoxFuture<'a, Answer>),
}

use Handler::{Later, Now};

/// What answers requests of a code; none if they are not served.
pub(super) fn handler_of(code: i32) -> Option<Handler> {
    TABLE.iter().find(|(served, _)| *served == code).map(|(_, handler)| *handler)
}

/// Each row reads the request, and gives it what it may touch.
const TABLE: &[(i32, Handler)] = &[
    (
        request::HEART_BEAT,
        Now(|Asked { broker, connection, command }| {
            HeartBeat::read(command)?.run(&broker.clients, connection)
        }),
    ),
    (
        request::UNREGISTER_CLIENT,
        Now(|Asked { broker, connection, command }| {
            Ok(Unregister::read(command)?.run(&broker.clients, connection))
        }),
    ),
    (
        request::GET_CONSUMER_LIST_BY_GROUP,
        Later(|Asked { broker, command, .. }| {
            Box::pin(async move { ConsumerList::read(command)?.run(&broker.clients).await })
        }),
    ),
    (request::CHECK_CLIENT_CONFIG, Now(|Asked { command, .. }| check_client_config(command))),
    (
        request::QUERY_CONSUMER_OFFSET,
        Later(|Asked { broker, command, .. }| {
            Box::pin(async move { QueryConsumerOffset::read(command)?.run(&broker.consumed).await })
        }),
    ),
    (
        request::UPDATE_CONSUMER_OFFSET,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                UpdateConsumerOffset::read(command)?.run(&it.consumed, &it.topics).await
            })
        }),
    ),
    (
        request::GET_MAX_OFFSET,
        Now(|Asked { broker, command, .. }| MaxOffset::read(command)?.run(&broker.replica)),
    ),
    (
        request::GET_MIN_OFFSET,
        Now(|Asked { broker, command, .. }| MinOffset::read(command)?.run(&broker.replica)),
    ),
    (
        request::SEARCH_OFFSET_BY_TIMESTAMP,
        Later(|Asked { broker, command, .. }| {
            Box::pin(async move { SearchOffset::read(command)?.run(&broker.replica).await })
        }),
    ),
    (
        request::LOCK_BATCH_MQ,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                LockQueues::read(command, &it.replica.name)?.run(&it.replica, &it.leases).await
            })
        }),
    ),
    (
        request::UNLOCK_BATCH_MQ,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                UnlockQueues::read(command, &it.replica.name)?.run(&it.replica).await
            })
        }),
    ),
    (
        request::CONSUMER_SEND_MSG_BACK,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                SendBack::read(command)?.run(&it.replica, &it.topics, &it.clients).await
            })
        }),
    ),
    (
        request::QUERY_MESSAGE,
        Later(|Asked { broker, command, .. }| {
            Box::pin(async move { Query::read(command)?.run(&broker.replica).await })
        }),
    ),
    (
        request::GET_BROKER_RUNTIME_INFO,
        Later(|Asked { broker: it, .. }| {
            Box::pin(runtime_info(&it.replica, &it.throughput, it.started_ms))
        }),
    ),
    (
        request::UPDATE_AND_CREATE_TOPIC,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move { PutTopic::read(command)?.run(&it.replica, &it.topics).await })
        }),
    ),
    (
        request::GET_TOPIC_STATS_INFO,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move { TopicStats::read(command)?.run(&it.replica, &it.topics).await })
        }),
    ),
    (
        request::GET_TOPIC_CONFIG,
        Now(|Asked { broker, command, .. }| TopicSettings::read(command)?.run(&broker.topics)),
    ),
    (
        request::DECIDE_TOPIC,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(
                async move { DecideTopic::read(command, it.replica.number)?.run(&it.topics).await },
            )
        }),
    ),
    (
        request::DELETE_TOPIC_IN_BROKER,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move { DeleteTopic::read(command)?.run(&it.replica, &it.topics).await })
        }),
    ),
    (
        request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(AllGroups::read(command).run(&it.clients, &it.topics))
        }),
    ),
    (
        request::GET_CONSUMER_CONNECTION_LIST,
        Later(|Asked { broker, command, .. }| {
            Box::pin(async move { ConsumerConnections::read(command)?.run(&broker.clients).await })
        }),
    ),
    (
        request::GET_CONSUME_STATS,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                ConsumeStats::read(command)?.run(&it.clients, &it.topics, &it.replica).await
            })
        }),
    ),
    (
        request::INVOKE_BROKER_TO_RESET_OFFSET,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(async move {
                let reset = ResetGroup::read(command)?;
                reset.run(&it.replica, &it.topics, &it.clients, &it.consumed).await
            })
        }),
    ),
    (
        request::QUERY_TOPIC_CONSUME_BY_WHO,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(
                async move { GroupsOfTopic::read(command)?.run(&it.clients, &it.topics).await },
            )
        }),
    ),
    (
        request::QUERY_TOPICS_BY_CONSUMER,
        Later(|Asked { broker: it, command, .. }| {
            Box::pin(
                async move { TopicsOfGroup::read(command)?.run(&it.topics, it.replica.addr).await },
            )
        }),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_has_one_row() {
        let codes: BTreeSet<_> = TABLE.iter().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), TABLE.len());
        assert!(handler_of(request::HEART_BEAT).is_some());
        assert!(handler_of(request::SEND_MESSAGE).is_none(), "told apart before");
    }
}
