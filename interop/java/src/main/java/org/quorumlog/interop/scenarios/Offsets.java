package org.quorumlog.interop.scenarios;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** A consumer that ends in order and starts again goes on where it was, without a message twice. */
public final class Offsets implements Scenario {
    @Override
    public String name() {
        return "offsets";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        for (int round = 0; round < 3; round++) {
            for (int sent = 0; sent < Run.count(30); sent++) {
                Message message = tally.next(run.topic(), "TagA");
                tally.acknowledged(message, producer.send(message));
            }
            DefaultMQPushConsumer consumer = started(run, tally);
            tally.awaitConsumed();
            consumer.shutdown();
        }
        tally.check(tally.duplicated() == 0, "a restarted consumer got messages again");
    }

    static DefaultMQPushConsumer started(Run run, Tally tally) throws MQClientException {
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.setAwaitTerminationMillisWhenShutdown(10_000);
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(tally::consumed);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }
}
