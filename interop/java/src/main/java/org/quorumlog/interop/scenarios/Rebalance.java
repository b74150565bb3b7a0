package org.quorumlog.interop.scenarios;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Two consumers of one group share the queues; when one leaves, the other takes its queues over. */
public final class Rebalance implements Scenario {
    @Override
    public String name() {
        return "rebalance";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        send(run, tally, producer);
        AtomicInteger first = new AtomicInteger();
        AtomicInteger second = new AtomicInteger();
        DefaultMQPushConsumer leaving = started(run, tally, first);
        tally.awaitConsumed();
        started(run, tally, second);

        boolean shared = Run.await(() -> {
            try {
                send(run, tally, producer);
                Thread.sleep(100);
            } catch (Exception failure) {
                tally.fail("send failed: " + failure);
            }
            return second.get() > 0;
        });
        tally.check(shared, "the second consumer got no queue");
        leaving.shutdown();
        int before = first.get();
        send(run, tally, producer);
        tally.awaitConsumed();
        tally.check(first.get() == before, "a consumer that has left got a message");
        tally.figure("first", first.get());
        tally.figure("second", second.get());
    }

    /** One message for each of the four queues. */
    private static void send(Run run, Tally tally, DefaultMQProducer producer) throws Exception {
        for (int sent = 0; sent < 4; sent++) {
            Message message = tally.next(run.topic(), "TagA");
            tally.acknowledged(message, producer.send(message));
        }
    }

    private static DefaultMQPushConsumer started(Run run, Tally tally, AtomicInteger count) throws MQClientException {
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.setAwaitTerminationMillisWhenShutdown(10_000);
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(tally::consumed);
            count.addAndGet(messages.size());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }
}
