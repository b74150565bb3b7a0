package org.quorumlog.interop.scenarios;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** One group subscribes to two of four tags and another group to all: each gets what it asked for. */
public final class TagFilter implements Scenario {
    /** Two of them have the same {@code String.hashCode}, by which brokers filter: the client must tell them apart. */
    private static final String[] TAGS = {"Coffee", "Tea", "AaTonic", "BBTonic"};

    @Override
    public String name() {
        return "tag-filter";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        int count = Run.count(40);
        for (int sent = 0; sent < count; sent++) {
            Message message = tally.next(run.topic(), TAGS[sent % TAGS.length]);
            tally.acknowledged(message, producer.send(message));
        }

        Set<String> filtered = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer choosy = run.consumer(run.named("choosy"));
        choosy.subscribe(run.topic(), "Coffee || AaTonic");
        choosy.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                boolean wanted = message.getTags().equals("Coffee") || message.getTags().equals("AaTonic");
                tally.check(wanted, "got tag " + message.getTags());
                filtered.add(message.getKeys());
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        choosy.start();

        DefaultMQPushConsumer all = run.consumer(run.named("all"));
        all.subscribe(run.topic(), "*");
        all.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(tally::consumed);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        all.start();
        tally.awaitConsumed();
        int wanted = (count + 3) / 4 + (count + 1) / 4;
        Run.await(() -> filtered.size() >= wanted);
        tally.figure("filtered", filtered.size());
        tally.check(filtered.size() == wanted, filtered.size() + " messages passed the filter of " + wanted);
    }
}
