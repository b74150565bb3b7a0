package org.quorumlog.interop.scenarios;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.exception.RemotingException;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** What a consumer had committed before it ended in order, no consumer gets again after a failover. */
public final class FailoverOffsets implements Scenario {
    private final Set<String> finished = ConcurrentHashMap.newKeySet();
    private final AtomicInteger again = new AtomicInteger();

    @Override
    public String name() {
        return "failover-offsets";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        for (int sent = 0; sent < Run.count(1_000); sent++) {
            Message message = tally.next(run.topic(), "TagA");
            tally.acknowledged(message, producer.send(message));
        }
        Set<String> consumed = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer before = started(run, tally, consumed);
        tally.awaitConsumed();
        before.shutdown();
        finished.addAll(consumed);

        Run.askForFault();
        Run.awaitFault();
        // Behind the last of these in a queue, nothing of that queue is delivered again.
        for (MessageQueue queue : producer.fetchPublishMessageQueues(run.topic())) {
            Message message = tally.next(run.topic(), "TagA");
            tally.check(Run.await(() -> sent(producer, message, queue, tally)), "nothing can be sent to " + queue);
        }
        // A client whose first choice of name server is the dead one does not start, whoever serves: its user tries again.
        tally.check(Run.await(() -> starts(run, tally, consumed)), "no consumer starts");
        tally.awaitConsumed();
        tally.figure("redelivered", again.get());
        tally.check(again.get() == 0, again.get() + " messages came again whose offsets were committed");
    }

    private static boolean sent(DefaultMQProducer producer, Message message, MessageQueue queue, Tally tally) {
        try {
            tally.acknowledged(message, producer.send(message, queue));
            return true;
        } catch (MQClientException | RemotingException | MQBrokerException failure) {
            return false;
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    private boolean starts(Run run, Tally tally, Set<String> consumed) {
        try {
            started(run, tally, consumed);
            return true;
        } catch (MQClientException | IllegalStateException failure) {
            return false;
        }
    }

    private DefaultMQPushConsumer started(Run run, Tally tally, Set<String> consumed) throws MQClientException {
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.setAwaitTerminationMillisWhenShutdown(10_000);
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                tally.consumed(message);
                consumed.add(message.getKeys());
                again.addAndGet(finished.contains(message.getKeys()) ? 1 : 0);
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }
}
