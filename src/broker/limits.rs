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
