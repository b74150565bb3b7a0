//! How much one name, one request, one record of the log and the whole state may hold. A handler checks a request against
//! these before it proposes anything. The state machine checks each record again: an older build may have let it in.
//!
//! Raising a limit of the state machine is safe only once all nodes run the build that raises it: until then the nodes
//! would apply the same record differently.

/// Longest name of a group.
pub(super) const GROUP_BYTES_MAX: usize = 255;
/// Longest name of a topic that a client makes (RocketMQ's `TopicValidator`).
pub(super) const TOPIC_BYTES_MAX: usize = 127;
/// Longest name of a topic that the state machine takes: the retry topic of the group with the longest name.
pub(super) const STORED_TOPIC_BYTES_MAX: usize = GROUP_BYTES_MAX + "%RETRY%".len();
/// Longest id of a client.
pub(super) const CLIENT_BYTES_MAX: usize = 255;
/// Longest address of a node's broker.
pub(super) const ADDR_BYTES_MAX: usize = 255;

/// Most topics of a log.
pub(super) const TOPICS_MAX: usize = 65_536;
/// Most topics of the registry, with those that it took over from logs: each log had a limit to itself.
pub(super) const ADOPTED_TOPICS_MAX: usize = 4 * TOPICS_MAX;
/// Most topics of a log with those that it follows: all of the registry, and its own.
pub(super) const FOLLOWED_TOPICS_MAX: usize = ADOPTED_TOPICS_MAX + TOPICS_MAX;
/// Most settings that single logs have of topics of the registry, all together.
pub(super) const SETTINGS_OF_LOGS_MAX: usize = 4 * TOPICS_MAX;
/// Most names of topics that were deleted before all logs had reported theirs.
pub(super) const DELETED_NAMES_MAX: usize = if cfg!(test) { 64 } else { 16_384 };
/// Most queues of topics that the registry takes over.
pub(super) const ADOPTED_QUEUES_MAX: usize = 2 * ALL_QUEUES_MAX;
/// Most queues of a topic.
pub(super) const QUEUES_MAX: u32 = 1024;
/// Most queues of all topics of a log.
pub(super) const ALL_QUEUES_MAX: usize = 1 << 19;
/// Nodes that have led and whose addresses are remembered.
pub(super) const NODES_MAX: usize = 1024;

/// Most consumed offsets of a log.
pub(super) const OFFSETS_MAX: usize = 1 << 20;
/// Most memory that they take.
pub(super) const OFFSETS_BYTES_MAX: usize = 128 << 20;
/// Most topics that one group has consumed.
pub(super) const TOPICS_OF_GROUP_MAX: usize = 16_384;

/// Most groups that hold locks.
pub(super) const LOCKING_GROUPS_MAX: usize = 16_384;
/// Most clients of one group that hold locks.
pub(super) const LOCKING_CLIENTS_MAX: usize = 1024;
/// Most queues that one group's consumers hold.
pub(super) const LOCKS_OF_GROUP_MAX: usize = 16_384;
/// Most memory that all locks of a log take.
pub(super) const LOCKS_BYTES_MAX: usize = 32 << 20;
/// Most locks that records of the oldest builds leave in a log.
pub(super) const OLD_LOCKS_MAX: usize = 1 << 18;
/// Most queues in one request for locks.
pub(super) const LOCK_QUEUES_MAX: usize = 4096;

/// Consumed offsets that wait for their record, and the memory that they take.
pub(super) const PENDING_OFFSETS_MAX: usize = 65_536;
pub(super) const PENDING_OFFSETS_BYTES_MAX: usize = 16 << 20;
/// Most consumed offsets of one record, and its size. Far below what a log takes, so that one record holds up nothing.
pub(super) const OFFSETS_OF_RECORD_MAX: usize = 4096;
pub(super) const OFFSETS_RECORD_BYTES_MAX: usize = 256 << 10;
/// Offsets that were reset lately.
pub(super) const RESETS_MAX: usize = 65_536;

/// Most bytes of a request's fields, unless it is a message's.
pub(super) const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the body of a heartbeat, or of a request for locks.
pub(super) const LARGE_BODY_BYTES_MAX: usize = 1 << 20;
/// Largest decision on topics in a request.
pub(super) const DECISION_BYTES_MAX: usize = 512 << 10;
/// Most bytes of the body of any other request that is no message.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of messages in the answer to a pull, as in RocketMQ; one message may be larger.
pub(super) const PULL_BYTES_MAX: usize = 256 << 10;
/// Most bytes of the body of an answer that lists something: stock clients take no frame above 16 MiB.
pub(super) const LIST_BYTES_MAX: usize = 15 << 20;
/// Most queues that one answer describes.
pub(super) const LISTED_QUEUES_MAX: usize = 16_384;
/// Questions that may read or list a lot, and are answered at the same time.
pub(super) const LONG_ANSWERS_MAX: usize = 4;
/// Such questions of one connection that are answered or wait, one after another.
pub(super) const LONG_QUESTIONS_OF_CONNECTION_MAX: usize = 16;

/// Clients that one broker knows at once.
pub(super) const CLIENTS_MAX: usize = 65_536;
/// Clients that one connection speaks for. Stock clients do not share connections.
pub(super) const CLIENTS_OF_CONNECTION_MAX: usize = 16;
/// Most memory that one connection's clients, groups and subscriptions take: more than the largest heartbeat takes.
pub(super) const CONNECTION_CLIENTS_BYTES_MAX: usize = 8 << 20;
/// Groups of one client.
pub(super) const GROUPS_OF_CLIENT_MAX: usize = 1024;
/// Clients of one group.
pub(super) const MEMBERS_OF_GROUP_MAX: usize = 8192;
/// Topics that a group has subscribed to.
pub(super) const SUBSCRIPTIONS_OF_GROUP_MAX: usize = 1024;
/// Longest expression of a subscription, and most tags.
pub(super) const EXPRESSION_BYTES_MAX: usize = 32 << 10;
pub(super) const TAGS_MAX: usize = 1024;
/// Most memory that clients, groups and subscriptions take.
pub(super) const CLIENTS_BYTES_MAX: usize = 96 << 20;
