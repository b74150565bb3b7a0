package org.quorumlog.interop;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.BooleanSupplier;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** One play of a scenario: names that no other play uses, and the clients, which it shuts down at the end. */
public final class Run implements AutoCloseable {
    /** How long a scenario waits for something that must happen. A stock client may need 30 s to learn a route. */
    private static final Duration PATIENCE = Duration.ofSeconds(Integer.getInteger("interop.patience", 90));

    private static final BufferedReader COMMANDS =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private final String nameServer;
    private final String suffix;
    private final Deque<Runnable> shutdowns = new ArrayDeque<>();
    private int clients;

    Run(String nameServer, String scenario) {
        this.nameServer = nameServer;
        String stamp = System.getProperty("interop.run", Long.toString(System.currentTimeMillis(), 36));
        this.suffix = scenario + "-" + stamp;
    }

    /** A topic of this play alone. */
    public String topic() {
        return "interop-" + suffix;
    }

    /** A second topic, or a group, of this play alone. */
    public String named(String what) {
        return what + "-" + suffix;
    }

    /** {@code otherwise}, or what the command line sets for all scenarios: small recordings need few messages. */
    public static int count(int otherwise) {
        return Math.min(otherwise, Integer.getInteger("interop.count", otherwise));
    }

    /** A started producer with the client's defaults. */
    public DefaultMQProducer producer() throws MQClientException {
        DefaultMQProducer producer = configuredProducer();
        producer.start();
        return producer;
    }

    /** A producer that the scenario configures further, and starts. */
    public DefaultMQProducer configuredProducer() {
        DefaultMQProducer producer = new DefaultMQProducer(named("producer"));
        producer.setNamesrvAddr(nameServer);
        producer.setInstanceName(instance());
        // The client's default is 3 s. A busy machine may need more until the client's code is warm.
        producer.setSendMsgTimeout(Integer.getInteger("interop.sendTimeout", producer.getSendMsgTimeout()));
        String address = System.getProperty("interop.clientIp");
        if (address != null) {
            producer.setClientIP(address);
        }
        shutdowns.push(producer::shutdown);
        return producer;
    }

    /** A push consumer of {@code group} from the first message on. The scenario subscribes it and starts it. */
    public DefaultMQPushConsumer consumer(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName(instance());
        String address = System.getProperty("interop.clientIp");
        if (address != null) {
            consumer.setClientIP(address);
        }
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    /** The started stock admin client. */
    public DefaultMQAdminExt admin() throws MQClientException {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(nameServer);
        admin.setInstanceName(instance());
        admin.start();
        shutdowns.push(admin::shutdown);
        return admin;
    }

    /** Waits until {@code condition}; false if it takes longer than the patience of the command line. */
    public static boolean await(BooleanSupplier condition) throws InterruptedException {
        return await(PATIENCE, condition);
    }

    /** Waits until {@code condition}; false if it takes longer than {@code limit}. */
    public static boolean await(Duration limit, BooleanSupplier condition) throws InterruptedException {
        long deadline = System.nanoTime() + limit.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                return false;
            }
            Thread.sleep(5);
        }
        return true;
    }

    /** Tells whoever breaks the cluster that now is the time. */
    public static void askForFault() {
        System.out.println("FAULT");
        System.out.flush();
    }

    /** Waits for a line on standard input: the fault has happened. */
    public static void awaitFault() throws IOException {
        if (COMMANDS.readLine() == null) {
            throw new IOException("standard input ended before the fault happened");
        }
    }

    /** Clients of one process share connections by instance name, so each has its own, as in separate processes. */
    private String instance() {
        clients++;
        return suffix + "-" + clients;
    }

    @Override
    public void close() {
        while (!shutdowns.isEmpty()) {
            shutdowns.pop().run();
        }
    }
}
