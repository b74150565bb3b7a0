package org.quorumlog.interop.scenarios;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Sends with retries, a timeout and larger bodies, which the client compresses. */
public final class Retries implements Scenario {
    @Override
    public String name() {
        return "retries";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.configuredProducer();
        producer.setRetryTimesWhenSendFailed(3);
        producer.setRetryAnotherBrokerWhenNotStoreOK(true);
        producer.setSendMsgTimeout(10_000);
        producer.setCompressMsgBodyOverHowmuch(16);
        producer.start();
        for (int sent = 0; sent < Run.count(30); sent++) {
            Message message = tally.next(run.topic(), "TagA");
            message.putUserProperty("attempts", "4");
            tally.acknowledged(message, producer.send(message));
        }

        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                tally.consumed(message);
                tally.check("4".equals(message.getUserProperty("attempts")), "a user property is missing");
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        tally.awaitConsumed();
    }
}
