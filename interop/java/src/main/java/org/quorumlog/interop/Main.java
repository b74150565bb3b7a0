package org.quorumlog.interop;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.common.MQVersion;
import org.quorumlog.interop.scenarios.AdminTopic;
import org.quorumlog.interop.scenarios.AsyncSend;
import org.quorumlog.interop.scenarios.BadInput;
import org.quorumlog.interop.scenarios.Batch;
import org.quorumlog.interop.scenarios.DeadLetter;
import org.quorumlog.interop.scenarios.Delay;
import org.quorumlog.interop.scenarios.Failover;
import org.quorumlog.interop.scenarios.FailoverOffsets;
import org.quorumlog.interop.scenarios.Mqadmin;
import org.quorumlog.interop.scenarios.Offsets;
import org.quorumlog.interop.scenarios.Oneway;
import org.quorumlog.interop.scenarios.Orderly;
import org.quorumlog.interop.scenarios.PushConsume;
import org.quorumlog.interop.scenarios.Query;
import org.quorumlog.interop.scenarios.Rebalance;
import org.quorumlog.interop.scenarios.Retries;
import org.quorumlog.interop.scenarios.SyncSend;
import org.quorumlog.interop.scenarios.TagFilter;

/**
 * {@code Main <name server> [scenario...]}: plays the scenarios one after another, prints a line for each, and
 * ends with 0 if all of them held and with 1 otherwise.
 */
public final class Main {
    /** What is played if none is named. */
    private static final List<Scenario> ORDINARY = List.of(
        new SyncSend(), new AsyncSend(), new Oneway(), new Retries(), new PushConsume(), new DeadLetter(),
        new Orderly(), new Batch(), new TagFilter(), new Delay(), new Query(), new Offsets(), new Rebalance(),
        new AdminTopic(), new Mqadmin(), new BadInput());

    /** What needs somebody who breaks the cluster meanwhile. */
    private static final List<Scenario> WITH_FAULTS = List.of(new Failover(), new FailoverOffsets());

    private Main() {
    }

    public static void main(String[] arguments) {
        Map<String, Scenario> known = new LinkedHashMap<>();
        ORDINARY.forEach(scenario -> known.put(scenario.name(), scenario));
        WITH_FAULTS.forEach(scenario -> known.put(scenario.name(), scenario));
        if (arguments.length == 0) {
            System.err.println("usage: Main <name server> [" + String.join("|", known.keySet()) + "]...");
            System.exit(2);
        }
        List<Scenario> chosen = new ArrayList<>(arguments.length == 1 ? ORDINARY : List.of());
        for (int at = 1; at < arguments.length; at++) {
            Scenario scenario = known.get(arguments[at]);
            if (scenario == null) {
                System.err.println("no scenario " + arguments[at] + "; there are " + known.keySet());
                System.exit(2);
            }
            chosen.add(scenario);
        }
        int failures = 0;
        for (Scenario scenario : chosen) {
            failures += play(scenario, arguments[0]) ? 0 : 1;
        }
        System.exit(failures == 0 ? 0 : 1);
    }

    private static boolean play(Scenario scenario, String nameServer) {
        Tally tally = new Tally(scenario.name());
        long start = System.nanoTime();
        try (Run run = new Run(nameServer, scenario.name())) {
            scenario.play(run, tally);
        } catch (Exception | AssertionError failure) {
            tally.fail(failure.toString());
            if (Boolean.getBoolean("interop.trace")) {
                failure.printStackTrace();
            }
        }
        tally.close();
        String client = MQVersion.getVersionDesc(MQVersion.CURRENT_VERSION);
        long millis = (System.nanoTime() - start) / 1_000_000;
        System.out.printf("%s %s client=%s %s millis=%d%s%n", tally.held() ? "PASS" : "FAIL", scenario.name(), client,
            tally.counts(), millis, tally.held() ? "" : ": " + String.join("; ", tally.failures()));
        System.out.flush();
        return tally.held();
    }
}
