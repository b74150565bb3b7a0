package org.quorumlog.interop;

/** One program as a user of RocketMQ would write it, with its assertions. */
public interface Scenario {
    /** The name by which the command line selects it. */
    String name();

    /** Sends and consumes by the clients that {@code run} makes, and tells {@code tally} about each message. */
    void play(Run run, Tally tally) throws Exception;
}
