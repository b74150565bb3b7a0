package org.quorumlog.interop.scenarios;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Sends 100 messages without waiting for each, and waits for all callbacks by a latch. */
public final class AsyncSend implements Scenario {
    @Override
    public String name() {
        return "async-send";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        tally.sentConcurrently();
        DefaultMQProducer producer = run.configuredProducer();
        producer.setRetryTimesWhenSendAsyncFailed(0);
        producer.start();

        int count = Run.count(100);
        CountDownLatch answered = new CountDownLatch(count);
        for (int sent = 0; sent < count; sent++) {
            Message message = tally.next(run.topic(), "TagA");
            producer.send(message, new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    tally.acknowledged(message, result);
                    answered.countDown();
                }

                @Override
                public void onException(Throwable failure) {
                    tally.fail("send failed: " + failure);
                    answered.countDown();
                }
            });
        }
        tally.check(answered.await(30, TimeUnit.SECONDS), answered.getCount() + " callbacks never came");

        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(tally::consumed);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        tally.awaitConsumed();
    }
}
