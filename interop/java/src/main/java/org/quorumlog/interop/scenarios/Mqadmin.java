package org.quorumlog.interop.scenarios;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.command.MQAdminStartup;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** The commands of mqadmin, as an administrator types them, and what they print. */
public final class Mqadmin implements Scenario {
    private static final String AUTO_CREATE_TOPIC = "TBW102";
    private static final int PER_QUEUE = 4;

    @Override
    public String name() {
        return "mqadmin";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQAdminExt admin = run.admin();
        var broker = admin.examineTopicRouteInfo(AUTO_CREATE_TOPIC).getBrokerDatas().get(0);
        String cluster = broker.getCluster();
        String address = broker.getBrokerAddrs().get(0L);
        Shell shell = new Shell(admin.getNamesrvAddr(), tally);
        String topic = run.topic();

        shell.run("updateTopic", "-c", cluster, "-t", topic, "-r", "3", "-w", "3").shows("create topic to .* success");
        shell.run("topicList").shows("(?m)^" + Pattern.quote(topic) + "\\s*$");
        shell.run("topicRoute", "-t", topic).shows("\"readQueueNums\"\\s*:\\s*3").shows(Pattern.quote(address));
        // All but the version comes from the route; that is one of the things that a broker says of itself.
        String line = String.join("\\s+", Pattern.quote(cluster), Pattern.quote(broker.getBrokerName()), "0",
            Pattern.quote(address), "[A-Za-z]\\S* ?[0-9]\\S*", "");
        shell.run("clusterList").shows(line);
        shell.run("brokerStatus", "-b", address).shows("brokerVersionDesc").shows("putTps");

        byHand(shell, run.named("by-hand"), cluster);
        consumerProgress(shell, run, tally);

        shell.run("deleteTopic", "-c", cluster, "-t", topic).shows("delete topic .* success");
        boolean gone = Run.await(() -> !shell.run("topicList").has("(?m)^" + Pattern.quote(topic) + "\\s*$"));
        tally.check(gone, "a deleted topic is still listed");
    }

    /** Sends a message, finds it again by its key, and reads it. */
    private static void byHand(Shell shell, String topic, String cluster) throws InterruptedException {
        shell.run("updateTopic", "-c", cluster, "-t", topic, "-r", "1", "-w", "1").shows("success");
        String id = shell.run("sendMessage", "-t", topic, "-p", "a body", "-k", "a-key", "-c", "TagA").shows("SEND_OK")
            .find("\\b([0-9A-F]{32,})\\b");
        // RocketMQ indexes keys a moment after a send.
        String[] query = {"queryMsgByKey", "-t", topic, "-k", "a-key"};
        Run.await(() -> shell.run(query).has(id));
        shell.run(query).shows(id);
        shell.run("consumeMessage", "-t", topic).shows("(?s)" + id + ".*a body");
        shell.run("topicStatus", "-t", topic).shows("\\s1\\s+\\d{4}-\\d\\d-\\d\\d");
        shell.run("deleteTopic", "-c", cluster, "-t", topic).shows("delete topic .* success");
    }

    /** Consumes, and sees by the tool that nothing is left; then sends more, and sees how far the group is behind. */
    private static void consumerProgress(Shell shell, Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        int queues = sendToEach(producer, run.topic(), tally);
        DefaultMQPushConsumer consumer = Offsets.started(run, tally);
        tally.awaitConsumed();
        String[] progress = {"consumerProgress", "-g", consumer.getConsumerGroup()};
        // A consumer reports its offsets every five seconds.
        Run.await(() -> shell.run(progress).has("Diff Total: 0\\b"));
        shell.run(progress).shows("Diff Total: 0\\b").shows(Pattern.quote(run.topic()));
        consumer.shutdown();
        int more = queues * PER_QUEUE;
        for (MessageQueue queue : producer.fetchPublishMessageQueues(run.topic())) {
            for (int at = 0; at < PER_QUEUE; at++) {
                producer.send(new Message(run.topic(), "TagA", new byte[8]), queue);
            }
        }
        shell.run(progress).shows("Diff Total: " + more + "\\b");
    }

    private static int sendToEach(DefaultMQProducer producer, String topic, Tally tally) throws Exception {
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
        for (MessageQueue queue : queues) {
            for (int at = 0; at < PER_QUEUE; at++) {
                Message message = tally.next(topic, "TagA");
                tally.acknowledged(message, producer.send(message, queue));
            }
        }
        return queues.size();
    }

    /** Runs commands in this process, since a process for each takes seconds, and keeps what they print. */
    private static final class Shell {
        private final String nameServer;
        private final Tally tally;

        Shell(String nameServer, Tally tally) throws IOException {
            this.nameServer = nameServer;
            this.tally = tally;
            // Version 4 wants to be told there how to log, as in an installation.
            Path home = Path.of(System.getProperty("user.home"), "rocketmq");
            Path settings = home.resolve("conf").resolve("logback_tools.xml");
            Files.createDirectories(settings.getParent());
            Files.writeString(settings, "<configuration/>");
            System.setProperty(MixAll.ROCKETMQ_HOME_PROPERTY, home.toString());
        }

        Printed run(String... command) {
            List<String> words = new ArrayList<>(Arrays.asList(command));
            words.add("-n");
            words.add(nameServer);
            PrintStream out = System.out;
            ByteArrayOutputStream printed = new ByteArrayOutputStream();
            try (PrintStream catching = new PrintStream(printed, true, StandardCharsets.UTF_8)) {
                System.setOut(catching);
                MQAdminStartup.main0(words.toArray(new String[0]), null);
            } finally {
                System.setOut(out);
            }
            return new Printed(command, printed.toString(StandardCharsets.UTF_8), tally);
        }
    }

    /** What a command printed. */
    private record Printed(String[] command, String text, Tally tally) {
        boolean has(String pattern) {
            return Pattern.compile(pattern).matcher(text).find();
        }

        Printed shows(String pattern) {
            tally.check(has(pattern), String.join(" ", command) + " printed no " + pattern + " but " + text.strip());
            return this;
        }

        /** The first group of the first match. */
        String find(String pattern) {
            var matcher = Pattern.compile(pattern).matcher(text);
            return matcher.find() ? matcher.group(1) : "nothing like " + pattern;
        }
    }
}
