//! Numbers of requests and of answers, as RocketMQ gives them.

/// Requests.
pub(crate) mod request {
    pub(crate) const SEND_MESSAGE: i32 = 10;
    pub(crate) const PULL_MESSAGE: i32 = 11;
    pub(crate) const QUERY_MESSAGE: i32 = 12;
    pub(crate) const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub(crate) const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub(crate) const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub(crate) const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub(crate) const GET_BROKER_RUNTIME_INFO: i32 = 28;
    pub(crate) const GET_MAX_OFFSET: i32 = 30;
    pub(crate) const GET_MIN_OFFSET: i32 = 31;
    pub(crate) const VIEW_MESSAGE_BY_ID: i32 = 33;
    pub(crate) const HEART_BEAT: i32 = 34;
    pub(crate) const UNREGISTER_CLIENT: i32 = 35;
    pub(crate) const CONSUMER_SEND_MSG_BACK: i32 = 36;
    pub(crate) const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    pub(crate) const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
    pub(crate) const LOCK_BATCH_MQ: i32 = 41;
    pub(crate) const UNLOCK_BATCH_MQ: i32 = 42;
    pub(crate) const CHECK_CLIENT_CONFIG: i32 = 46;
    pub(crate) const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    pub(crate) const GET_BROKER_CLUSTER_INFO: i32 = 106;
    pub(crate) const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    pub(crate) const GET_TOPIC_STATS_INFO: i32 = 202;
    pub(crate) const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    pub(crate) const GET_ALL_TOPIC_LIST_FROM_NAMESERVER: i32 = 206;
    pub(crate) const GET_CONSUME_STATS: i32 = 208;
    pub(crate) const DELETE_TOPIC_IN_BROKER: i32 = 215;
    pub(crate) const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
    pub(crate) const RESET_CONSUMER_CLIENT_OFFSET: i32 = 220;
    pub(crate) const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
    pub(crate) const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
    pub(crate) const SEND_MESSAGE_V2: i32 = 310;
    pub(crate) const SEND_BATCH_MESSAGE: i32 = 320;
    pub(crate) const QUERY_TOPICS_BY_CONSUMER: i32 = 343;
    pub(crate) const GET_TOPIC_CONFIG: i32 = 351;
    pub(crate) const LITE_PULL_MESSAGE: i32 = 361;
    /// Ours, between brokers: all that follows on this connection comes from the client whose address it names.
    pub(crate) const RELAY: i32 = 0x514C_0001;
    /// Ours, between brokers: the home log's leader is to decide on topics.
    pub(crate) const DECIDE_TOPIC: i32 = 0x514C_0003;
}

/// Answers.
pub(crate) mod response {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const SYSTEM_ERROR: i32 = 1;
    pub(crate) const SYSTEM_BUSY: i32 = 2;
    pub(crate) const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    pub(crate) const FLUSH_DISK_TIMEOUT: i32 = 10;
    pub(crate) const SLAVE_NOT_AVAILABLE: i32 = 11;
    pub(crate) const FLUSH_SLAVE_TIMEOUT: i32 = 12;
    pub(crate) const MESSAGE_ILLEGAL: i32 = 13;
    pub(crate) const SERVICE_NOT_AVAILABLE: i32 = 14;
    pub(crate) const NO_PERMISSION: i32 = 16;
    pub(crate) const TOPIC_NOT_EXIST: i32 = 17;
    pub(crate) const PULL_NOT_FOUND: i32 = 19;
    pub(crate) const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub(crate) const PULL_OFFSET_MOVED: i32 = 21;
    pub(crate) const QUERY_NOT_FOUND: i32 = 22;
    pub(crate) const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    pub(crate) const INVALID_PARAMETER: i32 = 29;
    pub(crate) const CONSUMER_NOT_ONLINE: i32 = 206;
    /// Ours, between brokers: this node does not lead the log, and has done nothing.
    pub(crate) const NOT_LEADING: i32 = 0x514C_0002;
}

/// Fields of ours that RocketMQ does not have.
pub(crate) mod names {
    /// Asks for the page of a list behind this name; empty for the first page.
    pub(crate) const AFTER: &str = "after";
    /// In the answer: the name behind which the next page begins, if there is one.
    pub(crate) const NEXT: &str = "next";
    /// In the answer to a change of which it is not known whether it was done: `UNKNOWN`.
    pub(crate) const OUTCOME: &str = "outcome";
    pub(crate) const UNKNOWN: &str = "unknown";
}
