package org.quorumlog.interop.scenarios;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Stream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Sends some messages back by RECONSUME_LATER until they have been tried often enough and are dead letters. */
public final class DeadLetter implements Scenario {
    private static final int RETRIES = 2;

    @Override
    public String name() {
        return "dead-letter";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        Map<String, Message> failing = new TreeMap<>();
        for (int sent = 0; sent < Run.count(20); sent++) {
            Message message = tally.next(run.topic(), sent % 4 == 0 ? "Fails" : "Works");
            tally.acknowledged(message, producer.send(message));
            if (sent % 4 == 0) {
                failing.put(message.getKeys(), message);
            }
        }

        Map<String, List<Integer>> attempts = new ConcurrentHashMap<>();
        String group = run.named("consumer");
        DefaultMQPushConsumer consumer = run.consumer(group);
        consumer.setMaxReconsumeTimes(RETRIES);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.subscribe(run.topic(), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            if (message.getReconsumeTimes() == 0) {
                tally.consumed(message);
            }
            if (message.getTags().equals("Works")) {
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            }
            tally.check(message.getTopic().equals(run.topic()), "a retry came as of topic " + message.getTopic());
            attempts.merge(message.getKeys(), List.of(message.getReconsumeTimes()), DeadLetter::joined);
            context.setDelayLevelWhenNextConsume(1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        tally.awaitConsumed();
        Run.await(() -> attempts.values().stream().filter(times -> times.size() > RETRIES).count() == failing.size());
        attempts.forEach((key, times) -> tally.check(times.equals(List.of(0, 1, 2)), key + " was tried at " + times));
        tally.check(attempts.size() == failing.size(), attempts.size() + " messages were sent back");

        ConcurrentLinkedQueue<MessageExt> dead = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer undertaker = run.consumer(run.named("undertaker"));
        undertaker.subscribe("%DLQ%" + group, "*");
        undertaker.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            dead.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        undertaker.start();
        Run.await(() -> dead.size() >= failing.size());
        tally.figure("deadLetters", dead.size());
        tally.check(dead.size() == failing.size(), dead.size() + " dead letters of " + failing.size());
        for (MessageExt letter : dead) {
            Message original = failing.remove(letter.getKeys());
            tally.check(original != null, letter.getKeys() + " is a dead letter and should not be");
            tally.check(original != null && Arrays.equals(original.getBody(), letter.getBody()),
                letter.getKeys() + " has another body as a dead letter");
        }
    }

    private static List<Integer> joined(List<Integer> before, List<Integer> now) {
        return Stream.concat(before.stream(), now.stream()).toList();
    }
}
