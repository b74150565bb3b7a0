package org.quorumlog.interop.scenarios;

import java.util.Arrays;
import java.util.List;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Finds messages by key, by unique id and by offset id, and asks queues for their offsets. */
public final class Query implements Scenario {
    private static final int NO_MESSAGE = 208;
    private static final long HOUR = 3_600_000;

    @Override
    public String name() {
        return "query";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.producer();
        long start = System.currentTimeMillis();
        SendResult last = null;
        Message lastSent = null;
        int count = Run.count(20);
        for (int sent = 0; sent < count; sent++) {
            lastSent = tally.next(run.topic(), "TagA");
            lastSent.setKeys(lastSent.getKeys() + " shared");
            last = producer.send(lastSent);
            tally.acknowledged(lastSent, last);
        }

        // The index may trail the acknowledgement, so the first answers may lack the last messages.
        Run.await(() -> byKey(producer, run.topic(), "shared", start).size() == count);
        List<MessageExt> found = byKey(producer, run.topic(), "shared", start);
        tally.check(found.size() == count, found.size() + " messages have the shared key, of " + count);
        List<MessageExt> one = byKey(producer, run.topic(), "key-0", start);
        tally.check(one.size() == 1, one.size() + " messages have key-0");

        checkSame(producer.viewMessage(run.topic(), last.getMsgId()), lastSent, last, "by unique id", tally);
        checkSame(producer.viewMessage(run.topic(), last.getOffsetMsgId()), lastSent, last, "by offset id", tally);
        try {
            producer.queryMessage(run.topic(), "absent", 8, start - HOUR, start + HOUR);
            tally.fail("a key that nobody used was found");
        } catch (MQClientException missing) {
            tally.check(missing.getResponseCode() == NO_MESSAGE, "a missing key has code " + missing.getResponseCode());
        }
        checkOffsets(producer, run.topic(), start, count, tally);
        Offsets.started(run, tally);
        tally.awaitConsumed();
    }

    private static List<MessageExt> byKey(DefaultMQProducer producer, String topic, String key, long start) {
        try {
            QueryResult result = producer.queryMessage(topic, key, 64, start - HOUR, start + HOUR);
            return result.getMessageList();
        } catch (MQClientException | InterruptedException missing) {
            return List.of();
        }
    }

    private static void checkSame(MessageExt found, Message sent, SendResult result, String how, Tally tally) {
        boolean same = found != null && Arrays.equals(found.getBody(), sent.getBody())
            && found.getQueueOffset() == result.getQueueOffset() && sent.getKeys().equals(found.getKeys());
        tally.check(same, how + " another message was found: " + found);
    }

    /** The queues hold what was sent, from 0 on, and a search by time finds the ends. */
    private static void checkOffsets(DefaultMQProducer producer, String topic, long start, int count, Tally tally)
        throws Exception {
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
        // `maxOffset` of RocketMQ may trail the acknowledgement too.
        tally.check(Run.await(() -> queues.stream().mapToLong(queue -> maxOffset(producer, queue)).sum() == count),
            "the queues do not end where they should");
        for (MessageQueue queue : queues) {
            long end = producer.maxOffset(queue);
            tally.check(producer.minOffset(queue) == 0, "queue " + queue + " does not begin at 0");
            long before = producer.searchOffset(queue, start - HOUR);
            tally.check(before == 0, "a search before the first message found " + before);
            long after = producer.searchOffset(queue, start + HOUR);
            tally.check(after == end || after == end - 1, "a search behind the last message found " + after + " of " + end);
        }
    }

    private static long maxOffset(DefaultMQProducer producer, MessageQueue queue) {
        try {
            return producer.maxOffset(queue);
        } catch (MQClientException failure) {
            return Long.MIN_VALUE;
        }
    }
}
