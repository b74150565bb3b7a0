package org.quorumlog.interop.scenarios;

import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Sends a list of messages at once, twice. Each becomes a message of its own, one behind another. */
public final class Batch implements Scenario {
    @Override
    public String name() {
        return "batch";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        int size = Run.count(50);
        int ids = 0;
        for (int round = 0; round < 2; round++) {
            List<Message> batch = new ArrayList<>();
            for (int at = 0; at < size; at++) {
                batch.add(tally.next(run.topic(), "TagA"));
            }
            SendResult result = producer.send(batch);
            tally.acknowledgedBatch(batch, result);
            ids += result.getOffsetMsgId().split(",").length;
        }
        tally.figure("offsetMsgIds", ids);

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
