//! Deliberate bugs of the broker, to test the tests (feature `mutants`). See the library's.

quorumlog::mutants! {
    above quorumlog::mutant::Mutant;

    /// A large answer that waits for room keeps what it has.
    LargeAnswersHoldOn,
    /// An awaited consumed offset that a newer one replaced is never answered.
    SupersededOffsetUnanswered,
    /// A record takes all consumed offsets that wait, whatever their size.
    OffsetRecordUnbounded,
    /// A client that asks for a consumed offset gets the last one, though the next is being written.
    OffsetQueryDoesNotWait,
    /// The body of a request may be as large as a frame, whatever is asked.
    BodyLimitIgnored,
    /// An answer lists all names, however many there are.
    LongListsAnswered,
    /// Applying a record believes names of any length.
    RecordLimitsIgnored,
    /// An offset that is refused ends the work on its record.
    RefusedOffsetHoldsUpOthers,
    /// Keys of a deleted topic still suppress duplicates.
    KeysOfDeletedTopicRemembered,
    /// A header that cannot be read ends its connection.
    UnreadableHeaderEndsConnection,
    /// A delayed message for a deleted topic is delivered to the next topic of that name.
    DelayedForAnotherTopic,
    /// The keys of delayed messages for a deleted topic still suppress duplicates.
    DelayedKeysOutliveTopic,
    /// What groups have consumed of a deleted topic is where they begin with the next topic of that name.
    DeletedTopicKeepsOffsets,
    /// Queues of a deleted topic stay locked.
    DeletedTopicKeepsLocks,
    /// Offsets that consumers report of a topic that is gone are stored.
    OffsetsOutliveTopic,
    /// A topic that was deleted and made again has the messages that it had.
    RecreatedTopicKeepsMessages,
    /// A log follows the registry of topics back to an earlier version.
    StaleFollowApplied,
    /// A send that was made before a topic was deleted makes it again.
    StaleSendRevivesTopic,
    /// A deletion is answered before all logs have followed it.
    DeleteAnsweredEarly,
    /// What was reported of a topic is noted for the next one of its name.
    OffsetsOfEarlierTopic,
    /// Of a topic that the registry does not know it is not remembered that it was deleted.
    UnknownDeletionNotNoted,
    /// Once there are too many, the names of deleted topics are forgotten.
    DeletedNamesForgotten,
    /// Records of a newer build are passed over.
    NewerRecordsSkipped,
    /// Messages that were delayed under the oldest rules are stored again.
    OldDelayedKeysForgotten,
    /// Records of older builds mean what they mean today.
    OldRecordsByNewRules,
    /// A broker that leads no more remembers its clients and their groups.
    ClientsRemembered,
    /// A broker that leads no more remembers the offsets that clients reported and reset.
    ReportsRemembered,
    /// A client leaves its groups with the end of any of its connections.
    MemberLeavesWithAnyConnection,
    /// Connections hold any number of bytes.
    ConnectionsUnbounded,
    /// A pull that waits keeps its frame and its fields.
    ParkedKeepsFrame,
    /// Any number of pulls may wait.
    ParkedUnbounded,
    /// The reader of plain headers takes any number of fields, and searches them for each name.
    PlainFieldsUnbounded,
    /// Each send that waits for a new topic has it decided again.
    TopicMadeByEach,
    /// A long question takes a place before its client has room for the answer.
    LongPlaceBeforeRoom,
    /// One connection may have all long questions that are answered at once.
    LongQuestionsOfOne,
    /// One connection may speak for any number of clients, and bring any amount of memory.
    ConnectionSpeaksForAll,
    /// Large answers may take the room that is for the ordinary answers of others.
    LargeAnswersTakeAll,
    /// An answer that lists a lot is made in one turn, however long that takes.
    LongAnswersInOneTurn,
    /// A pull looks at a whole queue for a message that its client wants.
    PullLooksAtAll,
    /// A pull that was written to the leader in the moment in which its time was up forgets where to pull again.
    ShedPullForgets,
    /// A client of a broker keeps a thread for as long as it sends requests that are quickly begun.
    RequestsInOneTurn,
    /// A number in a header may be written in any way.
    NumbersReadLoosely,
    /// Clients that bring a lot may take all the memory for clients.
    LargeClientsTakeAll,
    /// Idle connections keep their places when new ones come.
    IdleKeepPlaces,
    /// A request that waits for a leader that hangs is not taken back in time.
    RelayedWithoutLimit,
    /// A follower passes requests to whatever listens where the leader was.
    RelayedToAnybody,
    /// A broker does what is asked of another one.
    OtherBrokersServed,
    /// A message is called stored though the next leader may have put another one in its place.
    DiscardedCalledStored,
    /// A delayed message whose topic is gone is marked as delivered, and dropped.
    DeliveryDropped,
    /// A delayed message is due by its time of storing, which one wrong clock puts ahead for good.
    DueByStoredTime,
    /// A delayed message is due by the wall clock, whatever was seen of it.
    SightingsIgnored,
    /// A leader with a slower clock than the last gives earlier times of storing.
    StoredTimeGoesBack,
    /// Locks of queues are released by the wall clock.
    LeasesByWallClock,
    /// Each delayed message that is due takes its own record.
    DeliveredOneByOne,
    /// What a consumer that takes messages in order gives up is retried as what any other one hands back.
    OrderlyRetried,
    /// A batch whose own properties ask for a delay is stored without it.
    BatchDelayIgnored,
    /// A message with a timer is stored at once, without its timer.
    TimerIgnored,
    /// A node goes on asking a home log whose disk is full.
    FullDiskAskedAgain,
    /// A checkpoint of version 2 brings as many locks as it likes.
    OldLocksUnbounded,
    /// A broker's state has what it had before its log went back.
    BrokerStateKept,
    /// A broker does not notice that another state was put in the place of the one that it has looked at.
    ReplacedStateUnnoticed,
    /// Routes name leaders that have not been heard for long.
    LostLeadersNamed,
    /// A group's consumed offset never goes back, not even by a reset.
    OffsetNeverGoesBack,
    /// A delayed message is due after half of its delay.
    DueTooSoon,
    /// Deliveries that were done before are done again.
    DeliveredAgain,
    /// The keys of messages are not remembered, and suppress no duplicates.
    KeysNotRemembered,
    /// On a full disk, renewals of locks have no more than new locks.
    RenewalsAsNewLocks,
    /// A request for a lock looks at all that the group holds.
    AllLocksLookedAt,
    /// A lock is given to whoever asks for it last.
    LockTakenFromOwner,
    /// A send that was passed on to a leader that went away is passed on to the next one.
    RelayedSendAskedAgain,
    /// Retention makes a queue forget messages that the log still holds.
    PrunedTooFar,
    /// Each message of a batch is read as its first one.
    PartsReadAsFirst,
    /// What consumers report of before a reset counts.
    ResetsUnguarded,
    /// A checkpoint does not say which delayed messages were delivered.
    DeliveredNotInCheckpoint,
    /// A consumer is told that a message is handed back that may still be lost.
    HandedBackUnconfirmed,
    /// A delayed message that is delivered keeps the time at which it began to wait.
    DeliveryKeepsTime,
    /// A decision about topics is flushed as seldom as messages are.
    DecisionUnflushed,
    /// Requests that have come wait for the room that they hold themselves.
    WholeFramesWait,
    /// To finish a frame that has begun brings others, though there is no room.
    BegunFrameBringsOthers,
}
