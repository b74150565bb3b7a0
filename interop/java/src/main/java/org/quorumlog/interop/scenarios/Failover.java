package org.quorumlog.interop.scenarios;

import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.exception.RemotingException;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** A producer with retries sends and a consumer consumes without a pause while somebody breaks the cluster. */
public final class Failover implements Scenario {
    private static final Duration SENDING_LIMIT = Duration.ofSeconds(180);

    private final AtomicBoolean happened = new AtomicBoolean();
    private final AtomicLong longestStall = new AtomicLong();
    private final AtomicLong lastDelivery = new AtomicLong();

    @Override
    public String name() {
        return "failover";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        tally.expectOrder();
        DefaultMQProducer producer = run.configuredProducer();
        producer.setRetryTimesWhenSendFailed(3);
        producer.start();
        Message first = tally.next(run.topic(), "TagA");
        tally.acknowledged(first, producer.send(first));
        startConsumer(run, tally);
        tally.awaitConsumed();

        Thread waiting = new Thread(this::awaitFault, "fault");
        waiting.setDaemon(true);
        waiting.start();
        send(run, tally, producer);
        tally.awaitConsumed();
        tally.figure("consumeStallMillis", longestStall.get() / 1_000_000);
        tally.figure("slowestMillis", tally.slowest() / 1_000_000);
    }

    private void awaitFault() {
        try {
            Run.awaitFault();
            happened.set(true);
        } catch (IOException nobody) {
            // `send` then ends by its limit, and fails.
        }
    }

    /** Sends until some time after the fault, and measures the longest time without an acknowledgement. */
    private void send(Run run, Tally tally, DefaultMQProducer producer) throws InterruptedException {
        int before = Run.count(1_000);
        int after = Run.count(3_000);
        long failed = 0;
        long stall = 0;
        long start = System.nanoTime();
        long lastAcknowledged = start;
        for (int acknowledged = 0, since = 0; since < after; ) {
            if (System.nanoTime() - start > SENDING_LIMIT.toNanos()) {
                tally.fail("after " + SENDING_LIMIT + " only " + since + " of " + after + " messages were sent");
                break;
            }
            Message message = tally.next(run.topic(), "TagA");
            try {
                tally.acknowledged(message, producer.send(message));
            } catch (MQClientException | RemotingException | MQBrokerException failure) {
                failed++;
                continue;
            }
            long now = System.nanoTime();
            stall = Math.max(stall, now - lastAcknowledged);
            lastAcknowledged = now;
            since += happened.get() ? 1 : 0;
            acknowledged++;
            if (acknowledged == before) {
                Run.askForFault();
            }
        }
        tally.figure("failed", failed);
        tally.figure("sendStallMillis", stall / 1_000_000);
    }

    private void startConsumer(Run run, Tally tally) throws MQClientException {
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        // One thread, so that the order of calls is the order of the queue.
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            long now = System.nanoTime();
            long last = lastDelivery.getAndSet(now);
            longestStall.accumulateAndGet(last == 0 ? 0 : now - last, Math::max);
            messages.forEach(tally::consumed);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }
}
