package org.quorumlog.interop.scenarios;

import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** A push consumer is there first and gets each message as it is sent: held pulls are woken. */
public final class PushConsume implements Scenario {
    /** Far below the 15 s for which a pull is held: a message that waits for that was not pushed. */
    private static final long LATENCY_LIMIT_MICROS = 2_000_000;

    @Override
    public String name() {
        return "push-consume";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        Message first = tally.next(run.topic(), "TagA");
        tally.acknowledged(first, producer.send(first));

        Map<String, Long> seen = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                seen.put(message.getKeys(), System.nanoTime());
                tally.consumed(message);
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        long start = System.nanoTime();
        consumer.start();
        tally.awaitConsumed();
        tally.figure("firstMillis", (System.nanoTime() - start) / 1_000_000);

        int count = Run.count(200);
        long[] micros = new long[count];
        for (int sent = 0; sent < count; sent++) {
            Message message = tally.next(run.topic(), "TagA");
            tally.acknowledged(message, producer.send(message));
            long acknowledged = System.nanoTime();
            String key = message.getKeys();
            if (!Run.await(() -> seen.containsKey(key))) {
                break;
            }
            micros[sent] = Math.max(0, (seen.get(key) - acknowledged) / 1_000);
        }
        Arrays.sort(micros);
        tally.figure("latencyMicrosP50", micros[count / 2]);
        tally.figure("latencyMicrosP99", micros[count * 99 / 100]);
        tally.check(micros[count / 2] < LATENCY_LIMIT_MICROS, "messages wait for the end of a held pull");
        tally.awaitConsumed();
    }
}
