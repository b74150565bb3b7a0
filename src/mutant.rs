//! Deliberate bugs, to test the tests (feature `mutants`). For this project's own tests only.
//!
//! A mutant is a small bug behind a check, [`Mutant::is_active`]. One build holds them all, and a process
//! runs at most one: the one that was selected before anything else. Without the feature the check is a
//! constant `false`, so the bugs are not compiled in.
//!
//! `jepsen mutants` runs each of them until some test fails. What each breaks, and what is to find it, is
//! in its table, `jepsen/src/mutants/table`.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(
            not(all(feature = "broker", feature = "server")),
            allow(dead_code, reason = "some are the broker's, or the server's")
        )]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name, as `QUORUMLOG_MUTANT` has it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

mutants! {
    /// An append is acknowledged before its flush.
    AckBeforeFlush,
    /// A vote is written and not flushed.
    VoteNotFlushed,
    /// Names of replaced files are not made durable.
    DirectoryNotFlushed,
    /// A failed flush is tried once more, and believed if it then succeeds.
    FailedFlushRetried,
    /// A damaged group is cut off as torn though a later one shows that it had been flushed.
    CorruptionTakenForTorn,
    /// The CRC of a payload read from disk is not checked.
    PayloadCrcIgnored,
    /// A group or entry of another segment counts as one of this.
    SaltIgnored,
    /// A checkpoint is renamed into place without a flush.
    CheckpointNotFlushed,
    /// The manifest that puts an installed boundary in force is not flushed.
    InstallNotFlushed,
    /// A follower's answer to one request counts for all that are on their way to it.
    AckCoversAllSent,
    /// A read that fails gives nothing instead of an error.
    ReadErrorGivesNothing,
    /// The newest append of a run is told before those submitted earlier are stored.
    CompletionsOutOfOrder,
    /// An answer that nobody waits for is taken for that of the oldest request that waits.
    StaleReplyAccepted,
    /// What a follower holds of earlier terms counts as if it were of the leader's.
    PriorTermCounted,
    /// A leader answers a read barrier without asking a majority.
    ReadIndexSkipped,
    /// A read barrier rests on openraft's count of answers, which takes a late one for one to what was sent since.
    LateAnswersBelieved,
    /// A read barrier that could not ask the leader answers from what is known here.
    BarrierRetryAnswersLocally,
    /// Readers see what is appended and not committed.
    UncommittedVisible,
    /// A member that comes back without its data is taken for its old self.
    WipedNodeAccepted,
    /// A joint membership is stored and sent as the new one alone.
    JointConfigSkipped,
    /// The manifest that cuts the log is not flushed.
    TruncationNotFlushed,
    /// What the writer reports of entries that were dropped since counts for those at their indexes now.
    StaleEpochAccepted,
    /// Appends that find no space are acknowledged, and written nowhere.
    FullDiskIgnored,
    /// Lengths of frames are believed whatever the limit.
    FrameLimitIgnored,

    /// A leader that restarts takes up its leadership where it was.
    LeaderRestored,
    /// A vote is saved ahead of the appends that were submitted before it.
    VoteOvertakesAppends,
    /// The committed position that was stored is believed beyond the recovered tail.
    CommittedNotClamped,
    /// A checkpoint beyond what the recovered log knows to be committed is taken up.
    AppliedNotClamped,
    /// A follower's conflict counts as success.
    ConflictTakenForSuccess,
    /// The request stream outlives a response stream that ended with an error.
    RequestStreamLeaked,
    /// Every pre-vote is granted without asking.
    PreVoteGranted,
    /// A follower that has once heard a leader never looks at its clock again.
    TicksStayOff,
    /// Leadership is handed over without telling the successor.
    TransferNotSent,
    /// An installed boundary leaves the old segments in force.
    InstallWithoutFence,
    /// A replication request takes all that there is.
    RequestUncapped,
    /// Appends are admitted however much waits.
    AdmissionUnbounded,
    /// The records of a batch count for their payloads alone.
    BatchRecordsWeightless,
    /// Large appends may fill all the room that appends in flight have.
    LargeAppendsFillAll,
    /// Entries in memory count for their payloads alone.
    TailCountsPayloads,
    /// A batch is decoded before anything looks whether it will be refused.
    BatchDecodedFirst,
    /// A node has any number of subscriptions.
    SubscriptionsUnbounded,
    /// Readers see a commit some time after its caller was told.
    CommittedShownLate,
    /// A panic in one of openraft's tasks goes unnoticed.
    CrashNotNoticed,
    /// Where a member says that it is does not matter.
    MoveIgnored,
    /// A copy of a member that runs is let in.
    TwinAdmitted,
    /// A candidate gets votes of those that cannot reach it.
    UnreachedElected,

    /// A new segment's file is not flushed.
    SegmentNotFlushed,
    /// A new segment's name is not made durable before the manifest lists it.
    SegmentNameNotFlushed,
    /// A sealed segment's end is not flushed.
    SealNotFlushed,
    /// The manifest that lists a new segment is not flushed.
    RollNotFlushed,
    /// The log goes on over a torn tail instead of behind a cut.
    TornTailOverwritten,
    /// Both copies of a vote are written before either is flushed.
    VoteSlotsFlushedTogether,
    /// A missing vote file is made anew.
    MissingVoteForgotten,
    /// A full disk poisons the log.
    FullDiskPoisons,
    /// Entries leave the tail cache before they are stored.
    UnstoredEvicted,
    /// What is found at open is not flushed.
    RecoveredNotFlushed,
    /// The boundary's checkpoint is thinned out.
    BoundaryCheckpointRemoved,
    /// CRCs of headers are not checked.
    HeaderCrcIgnored,
    /// The CRC of a checkpoint's state is not checked.
    CheckpointCrcIgnored,
    /// The CRC of the body of a manifest or superblock is not checked.
    ControlFileCrcIgnored,
    /// The CRC of a payload that a peer sent is not checked.
    WireCrcIgnored,
    /// An append that is written at once goes ahead of what waits for the writer.
    AppendOvertakesWriter,
    /// What was written at once is flushed when the log is next used, and not in time.
    BackgroundFlushForgotten,

    /// A boundary that the log holds is installed as if it did not.
    InstalledOverHeld,
    /// Retention drops what is not applied yet.
    BoundaryPassesApplied,
    /// A log goes on after a failed write or flush.
    WrittenAfterFailure,
    /// A follower with a full disk takes nothing, also where its disk is needed for a majority.
    ReserveKept,
    /// What records with priority use of the reserve is not bounded.
    ReserveUnbounded,
    /// A leader takes ordinary records that no majority has space for.
    OtherDisksIgnored,
    /// A checkpoint that arrived damaged is installed.
    ReceivedCrcIgnored,
    /// Records with priority count as ordinary ones.
    PriorityIgnored,
    /// A flood of locks or consumed offsets on a full disk holds up who leads.
    EssentialStarved,
    /// On a full disk each log of a follower may use some of the reserve, however many there are.
    FollowedUnbounded,
    /// Checkpoints are written into the reserve of the disk.
    CheckpointTakesReserve,
    /// What was received of a checkpoint is dropped when a piece of it cannot be taken.
    ReceivedDropped,
    /// A deposed leader's checkpoint is taken, too.
    DeposedSenderBelieved,
    /// A record that the disk cannot read is no reason to give up the lead.
    UnreadableIgnored,
    /// A page that cannot be read from a mapped file ends the process.
    MappedUnchecked,
    /// Readers see a batch before its last entry is committed.
    BatchShownByHalves,
    /// Readers get what there is of a batch that its leader did not finish.
    BrokenBatchVisible,
    /// A state machine gets what there is of a batch that its leader did not finish.
    BrokenBatchApplied,

    /// An append whose outcome is unknown is tried again.
    UnknownOutcomeRetried,

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
    /// A leader that comes upon a damaged record goes on leading.
    DamagedLeaderStays,
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
    /// A state machine that has stopped takes checkpoints.
    StoppedMachineCheckpointed,
    /// Clients append to logs whose records have a form.
    ClientsAppendAnywhere,
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
    /// The system may hold any amount for a client that takes nothing.
    SendBufferUnbounded,
    /// Connections of the native protocol that hold nothing may have any amount of memory all together.
    QueuedUnbounded,
    /// All that wait for room are woken whenever some is given back.
    AllWaitersWoken,
    /// Records are read for a subscription before its client takes them.
    SubscriptionReadsAhead,
    /// A client of the native protocol keeps a thread for as long as it sends small frames.
    FramesInOneTurn,
    /// Each of many clients of the native protocol has a long turn.
    TurnsOfOneLength,
    /// Clients that have finished nothing yet may take all the room that there is.
    NewcomersTakeAll,
    /// A large frame takes its room when its header comes.
    HeadersTakeRoom,
    /// A small payload stays in the buffer that it came in.
    SmallBodiesShareChunks,
    /// A client of a broker keeps a thread for as long as it sends requests that are quickly begun.
    RequestsInOneTurn,
    /// A number in a header may be written in any way.
    NumbersReadLoosely,
    /// Clients that bring a lot may take all the memory for clients.
    LargeClientsTakeAll,
    /// A follower that is behind what it had acknowledged stops its leader.
    RevertedFollowerStopsLeader,
    /// Idle connections keep their places when new ones come.
    IdleKeepPlaces,
    /// A request that waits for a leader that hangs is not taken back in time.
    RelayedWithoutLimit,
    /// A broker does what is asked of another one.
    OtherBrokersServed,
    /// A message is called stored though the next leader may have put another one in its place.
    DiscardedCalledStored,
    /// A delayed message whose topic is gone is marked as delivered, and dropped.
    DeliveryDropped,
    /// Ages of segments go by the wall clock, so that a jump makes all of them old.
    AgesByWallClock,
    /// The clock of a node's logs makes up for jumps of the wall clock as if the node had been off.
    JumpsMadeUpFor,
    /// A delayed message is due by its time of storing, which one wrong clock puts ahead for good.
    DueByStoredTime,
    /// A delayed message is due by the wall clock, whatever was seen of it.
    SightingsIgnored,
    /// A leader with a slower clock than the last gives earlier times of storing.
    StoredTimeGoesBack,
    /// A frame of another version is taken for one of this.
    OtherVersionServed,
    /// What nodes say in the small bodies of their frames is believed unverified.
    SmallBodiesUnverified,
    /// A member counts as unreached when the lane for entries fails.
    AnyLaneCounts,
    /// A process that does not answer counts as ended at once.
    SilentCountsAsEnded,
    /// A process that was refused, and has taken part elsewhere, is forgotten.
    RivalForgotten,
    /// A process is let in though another one was while the one before was looked for.
    HeldReplacedUnseen,
    /// Two failed looks end a process, however long ago the first was, and whatever it has sent since.
    SilenceKept,
    /// Where a process dialed from is forgotten: it counts as replaced where another one has the address that it told.
    SourceForgotten,
    /// A process that was refused a moment ago counts as running, whoever answers.
    NearRivalRuns,
    /// A process that nobody can find where it dialed from may still run, though its connections have ended.
    SourceMustAnswer,
    /// Members that have not moved are written down all the same.
    EmptyMovesWritten,
    /// What comes from a node that was no member when it dialed counts for ever.
    UnlistedStays,
    /// A dial that reached a process that counts no more makes a connection all the same.
    DialOutlivesRenewal,
    /// Why a member is not reached is told of any place where it ever was.
    AnyPlaceNamed,
    /// A member counts though its data is older than what others have heard of.
    OlderDataAdmitted,
    /// The generation of a node's data stays as it was, whatever the node does.
    GenerationNotRaised,
    /// Each start raises the generation of the data, also if no member lets the node in.
    EveryStartRaises,
    /// An older copy that is accepted again is no newer than when it was accepted before.
    AcceptedOnce,
    /// One member is enough for a node to raise the generation of its data.
    OneMemberAdmits,
    /// A node that was told that its data is older takes part again after a restart.
    OutdatedForgotten,
    /// A node does not keep what it has heard of how new the data of others is.
    NewestForgotten,
    /// Members that were removed are still dialed and warned of.
    RemovedMembersKept,
    /// A process that must not go on opens further logs.
    RetiredOpensLogs,
    /// A leader that was removed still changes the members.
    RemovedLeaderChangesMembers,
    /// Locks of queues are released by the wall clock.
    LeasesByWallClock,
    /// Each delayed message that is due takes its own record.
    DeliveredOneByOne,
    /// What a consumer that takes messages in order gives up is retried as what any other one hands back.
    OrderlyRetried,
    /// A message with a timer is stored at once, without its timer.
    TimerIgnored,
    /// Memberships and the first entries of terms are flushed only where the node flushes everything.
    MembershipNotFlushed,
    /// A committed position found on disk counts though the log has another entry there.
    CommittedBelievedByIndex,
    /// A start after a power cut takes what is left of logs for all that they had acknowledged.
    LostPagesUnnoticed,
    /// A log whose flush failed is not noted as one that may have lost something.
    FailedLogTrusted,
    /// A run counts as ended well before its logs are closed.
    RunEndedEarly,
    /// A node whose copy of a log has stopped asks nobody who leads it.
    StoppedLogLeadsNowhere,
    /// A node goes on asking a home log whose disk is full.
    FullDiskAskedAgain,
    /// A node that was removed does not hear of it.
    RemovalNotTold,
    /// A node that is no member is removed all the same.
    StrangerRemoved,
    /// Clients delete the logs of a broker.
    ClientsDeleteAnything,
    /// The status names the leader of the last vote, be it there or not.
    LastVoteLeads,
    /// A node leads logs whose clients need another log that has stopped there.
    StoppedLogLeadsOn,
    /// A leader that leaves hands over to a copy that may have lost something.
    SuspectSucceeds,
    /// A leader that leaves hands over to a node without space for messages though others have it.
    FullDiskSucceeds,
    /// A voter that is asked late for a pre-vote ends the election that came of it.
    LatePreVoteEndsElection,
    /// A node that flushes always does not note it once the last of its logs is open.
    LateLogNotFlushed,
    /// A checkpoint of version 2 brings as many locks as it likes.
    OldLocksUnbounded,
    /// A log is noted as whole although it has come under suspicion since it was asked for.
    NewerSuspicionForgotten,
    /// The grant of a log that may have lost something is not marked.
    SuspectGrantUnmarked,
    /// A candidate takes its own vote for a trusted one.
    OwnGrantTrusted,
    /// Any majority of grants elects, whatever their logs may have lost.
    AnyGrantsElect,
    /// Where too many logs may have lost something, nobody is ever elected.
    NoElectionBySuspects,
    /// Nobody waits for the nodes that lost nothing before those that lost something elect one of them.
    StragglersNotWaitedFor,
    /// A log that may have lost something is trusted again once it holds what the leader has committed.
    TrustedAtCommitted,
    /// A log is trusted again in memory only.
    TrustNotStored,
    /// A follower says of what it has written that it has flushed it.
    WrittenTakenForFlushed,
    /// What the leader has flushed counts as flushed on a majority.
    StableByLeaderAlone,
    /// Entries of earlier terms count as stable once a majority has flushed them.
    StableOfOlderTerms,
    /// A request that was overtaken has commits count as stable again.
    StableAgainAfterDoubt,
    /// A log that may have lost something takes for committed what was.
    SuspectBelievesCommitted,
    /// A checkpoint is believed wherever the log holds some entry at its index.
    CheckpointBelievedByIndex,
    /// A checkpoint is saved before the entries that it is made of.
    CheckpointAheadOfLog,
    /// The boundary moves past what a majority has flushed.
    BoundaryPassesStable,
    /// A leader's log is taken for the same as this node's as far as that is committed.
    NothingCompared,
    /// A later leader's log is compared while requests of an earlier one may still move what is committed.
    LaterLeaderNotAwaited,
    /// Answers of a process that has ended count.
    EndedProcessCounts,
    /// A log that goes back keeps the first record that no majority is known to have flushed.
    RewoundTooLittle,
    /// A subscription of a log that goes back ends as if the log had been closed.
    RewindNotTold,
    /// A broker's state has what it had before its log went back.
    BrokerStateKept,
    /// A broker does not notice that another state was put in the place of the one that it has looked at.
    ReplacedStateUnnoticed,
    /// A decision about topics is flushed as seldom as messages are.
    DecisionUnflushed,
    /// Who has read what a boundary has replaced unseen is told that it was trimmed.
    ReplacedTakenForTrimmed,
    /// A read barrier holds for a node that has other records than the leader, if it has as many.
    BarrierByIndex,
    /// A log that goes back counts, and not what it may have lost by that.
    LostRecordsNotTold,
    /// A client's subscription goes on by index alone on a node whose log went another way.
    SubscriptionByIndex,
}

#[cfg(feature = "mutants")]
mod selection {
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Mutant;

    /// Names the mutant for programs that do not call [`select_mutant`], such as test binaries.
    const VARIABLE: &str = "QUORUMLOG_MUTANT";

    static SELECTED: OnceLock<Option<Mutant>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);

    impl Mutant {
        /// True if this process is to have this bug.
        pub(crate) fn is_active(self) -> bool {
            let active = selected() == Some(self);
            if active {
                REACHED.fetch_add(1, Ordering::Relaxed);
            }
            active
        }
    }

    impl FromStr for Mutant {
        type Err = String;

        fn from_str(name: &str) -> Result<Self, String> {
            let found = Self::ALL.iter().find(|mutant| mutant.name() == name);
            found.copied().ok_or_else(|| format!("there is no mutant {name:?}"))
        }
    }

    fn selected() -> Option<Mutant> {
        *SELECTED.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
            match name.parse() {
                Ok(mutant) => Some(mutant),
                Err(error) => panic!("{VARIABLE}: {error}"),
            }
        })
    }

    /// Gives this process a deliberate bug, for good.
    ///
    /// # Panics
    /// Another one, or none, is in force: the library is in use already.
    pub fn select_mutant(mutant: Mutant) {
        let selected = *SELECTED.get_or_init(|| Some(mutant));
        assert!(selected == Some(mutant), "{mutant:?} comes too late: {selected:?} is in force");
    }

    /// How often this process came by the selected mutant's place; 0 if it never had an effect.
    pub fn mutant_reached() -> u64 {
        REACHED.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "mutants")]
pub use selection::{mutant_reached, select_mutant};

#[cfg(not(feature = "mutants"))]
impl Mutant {
    /// There are no mutants in this build.
    #[inline(always)]
    pub(crate) const fn is_active(self) -> bool {
        false
    }
}
