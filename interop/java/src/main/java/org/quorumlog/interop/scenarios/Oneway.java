package org.quorumlog.interop.scenarios;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Sends without asking for an answer. With nothing broken, all of it arrives nevertheless. */
public final class Oneway implements Scenario {
    @Override
    public String name() {
        return "oneway";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        int count = Run.count(50);
        for (int sent = 0; sent < count; sent++) {
            producer.sendOneway(tally.next(run.topic(), "TagA"));
        }

        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(tally::consumed);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        tally.check(Run.await(() -> tally.consumed() == count), "oneway messages are missing");
    }
}
