package org.quorumlog.interop.scenarios;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Messages with a delay level come after the delay, once, and under their own topic. */
public final class Delay implements Scenario {
    /** The delays of levels 0 to 3 in milliseconds, as RocketMQ documents them. */
    private static final long[] MILLIS = {0, 1_000, 5_000, 10_000};
    /** The sender's clock and the broker's are one, but both are read in whole milliseconds. */
    private static final long EARLY_MILLIS = 2;

    @Override
    public String name() {
        return "delay";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        Message first = tally.next(run.topic(), "TagA");
        tally.acknowledged(first, producer.send(first));

        Map<String, Long> sentAt = new ConcurrentHashMap<>();
        long[] latest = new long[MILLIS.length];
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            long now = System.currentTimeMillis();
            messages.forEach(message -> {
                checkDelay(message, now - sentAt.getOrDefault(message.getKeys(), now), latest, tally);
                tally.consumed(message);
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        tally.awaitConsumed();

        for (int sent = 0; sent < Run.count(21); sent++) {
            int level = 1 + sent % 3;
            Message message = tally.next(run.topic(), "TagA");
            message.setDelayTimeLevel(level);
            message.putUserProperty("level", Integer.toString(level));
            sentAt.put(message.getKeys(), System.currentTimeMillis());
            tally.acknowledgedElsewhere(message, producer.send(message));
        }
        tally.awaitConsumed();
        for (int level = 1; level < MILLIS.length; level++) {
            tally.figure("lateMillisLevel" + level, latest[level]);
        }
        tally.check(tally.duplicated() == 0, "a delayed message was delivered again");
    }

    private static void checkDelay(MessageExt message, long waited, long[] latest, Tally tally) {
        String level = message.getUserProperty("level");
        if (level == null) {
            return;
        }
        long late = waited - MILLIS[Integer.parseInt(level)];
        tally.check(late >= -EARLY_MILLIS, "level " + level + " came after " + waited + " ms");
        synchronized (latest) {
            latest[Integer.parseInt(level)] = Math.max(latest[Integer.parseInt(level)], late);
        }
    }
}
