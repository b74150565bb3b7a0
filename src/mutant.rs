//! Deliberate bugs, to test the tests (feature `mutants`). For this project's own tests only: no part of the public API.
//!
//! A mutant is a small bug behind a check, `is_active`. One build holds them all, and a process runs at most one: the one
//! that was selected before anything else. Without the feature the check is a constant `false`, so the bugs are not compiled
//! in. Each crate declares its own with [`mutants!`](crate::mutants), and has a feature `mutants` that turns on this crate's.
//! A crate above others names the next one below. So a program, or a library's own tests, know all mutants that they have, and
//! fail for a name that is none.
//!
//! `jepsen mutants` runs each of them until some test fails. What each breaks, and what is to find it, is
//! in its table, `jepsen/src/mutants/table`.

/// Declares a crate's deliberate bugs.
#[doc(hidden)]
#[macro_export]
macro_rules! mutants {
    ($(above $below:ty;)? $($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(dead_code, unreachable_pub, reason = "some are a feature's; public with the feature `mutants`")]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// The names of all of them, as `QUORUMLOG_MUTANT` has them.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// True if there is one of this name, here or in a crate below.
            pub fn is_known(name: &str) -> bool {
                Self::NAMES.contains(&name) $(|| <$below>::is_known(name))?
            }

            /// True if this process is to have this bug.
            pub(crate) fn is_active(self) -> bool {
                // There may be crates above a library, except in its own tests.
                let knows_all = cfg!(test) || option_env!("CARGO_BIN_NAME").is_some();
                let is_known = knows_all.then_some(Self::is_known as fn(&str) -> bool);
                $crate::mutant::is_active(Self::NAMES[self as usize], is_known)
            }
        }

        #[cfg(not(feature = "mutants"))]
        impl Mutant {
            /// There are no mutants in this build.
            #[inline(always)]
            pub(crate) const fn is_active(self) -> bool {
                let _ = self;
                false
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
    /// A checkpoint of which a flush failed is flushed again, and believed.
    LostDraftKept,
    /// A node that is left out looks for a leader, which the members do not tell it.
    LeftOutSearches,
    /// Checkpoints are taken only when a segment is full.
    FullSegmentsOnly,
    /// A checkpoint is restored by a state machine that does not read it to its end, and nobody does.
    RestoredUnread,
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
    /// A leader that comes upon a damaged record goes on leading.
    DamagedLeaderStays,
    /// A state machine that has stopped takes checkpoints.
    StoppedMachineCheckpointed,
    /// Clients append to logs whose records have a form.
    ClientsAppendAnywhere,
    /// The system may hold any amount for a client that takes nothing.
    SendBufferUnbounded,
    /// Connections of the native protocol that hold nothing may have any amount of memory all together.
    QueuedUnbounded,
    /// Connections of the native protocol have no share of the queues that is theirs whatever the others hold.
    NoShares,
    /// A connection that took a small answer counts as one that takes large ones.
    AnyAnswerProves,
    /// A connection that finished a small frame counts as one that finishes large ones.
    AnyFrameProves,
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
    /// A follower that is behind what it had acknowledged stops its leader.
    RevertedFollowerStopsLeader,
    /// Ages of segments go by the wall clock, so that a jump makes all of them old.
    AgesByWallClock,
    /// The clock of a node's logs makes up for jumps of the wall clock as if the node had been off.
    JumpsMadeUpFor,
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
    /// News of the other end leaves a dial alone that hangs.
    HungDialKept,
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
    /// Memberships and the first entries of terms are flushed only where the node flushes everything.
    MembershipNotFlushed,
    /// A committed position found on disk counts though the log has another entry there.
    CommittedBelievedByIndex,
    /// A start after a power cut takes what is left of logs for all that they had acknowledged.
    LostPagesUnnoticed,
    /// A log whose flush failed is not noted as one that may have lost something.
    FailedLogTrusted,
    /// A start that fails to flush what the last run had acknowledged leaves the log as if it had lost nothing.
    FailedOpenTrusted,
    /// Records whose pages were dropped before they were flushed count as damaged.
    LostPagesTakenForDamage,
    /// A run counts as ended well before its logs are closed.
    RunEndedEarly,
    /// A node whose copy of a log has stopped asks nobody who leads it.
    StoppedLogLeadsNowhere,
    /// A node whose copy of a log lags asks nobody who leads it and what there is to know.
    LaggingLogLeadsNowhere,
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
    /// A node that lost something waits for the end of the log of a leader that leads again with another one.
    EarlierPositionAwaited,
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
    /// Retention drops what a state machine still needs.
    NeededNotKept,
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
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Names the mutant for programs that do not call [`select_mutant`], such as test binaries.
    const VARIABLE: &str = "QUORUMLOG_MUTANT";

    static SELECTED: OnceLock<Option<String>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    /// Set once the selected name was looked up.
    static KNOWN: OnceLock<()> = OnceLock::new();

    /// True if this process is to have the bug of this name. `is_known` is of a crate that knows all of its program's.
    ///
    /// # Panics
    /// The name that was selected is not known.
    pub fn is_active(name: &str, is_known: Option<fn(&str) -> bool>) -> bool {
        let selected = selected();
        if let (Some(wanted), Some(is_known)) = (selected, is_known) {
            KNOWN.get_or_init(|| assert!(is_known(wanted), "there is no mutant {wanted:?}"));
        }
        let active = selected == Some(name);
        if active {
            REACHED.fetch_add(1, Ordering::Relaxed);
        }
        active
    }

    fn selected() -> Option<&'static str> {
        let chosen = || std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        SELECTED.get_or_init(chosen).as_deref()
    }

    /// Gives this process a deliberate bug, for good. Whether some crate has one of this name, the caller has to see.
    ///
    /// # Panics
    /// Another one, or none, is in force: the library is in use already.
    pub fn select_mutant(name: &str) {
        let selected = SELECTED.get_or_init(|| Some(name.to_owned()));
        assert!(
            selected.as_deref() == Some(name),
            "{name} comes too late: {selected:?} is in force"
        );
    }

    /// How often this process came by the selected mutant's place; 0 if it never had an effect.
    pub fn mutant_reached() -> u64 {
        REACHED.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "mutants")]
pub use selection::{is_active, mutant_reached, select_mutant};
