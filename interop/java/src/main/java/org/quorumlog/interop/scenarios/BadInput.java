package org.quorumlog.interop.scenarios;

import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** What a broker must refuse, it refuses by RocketMQ's code, and serves the same connection on. */
public final class BadInput implements Scenario {
    private static final int MESSAGE_ILLEGAL = 13;
    private static final int NO_SUCH_QUEUE = 29;
    private static final int FIVE_MEBIBYTES = 5 << 20;

    @FunctionalInterface
    private interface Call {
        void make() throws Exception;
    }

    @Override
    public String name() {
        return "bad-input";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQProducer producer = run.configuredProducer();
        producer.setMaxMessageSize(2 * FIVE_MEBIBYTES);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(20_000);
        producer.start();
        send(run, tally, producer);
        MessageQueue queue = producer.fetchPublishMessageQueues(run.topic()).get(0);

        Message large = new Message(run.topic(), new byte[FIVE_MEBIBYTES]);
        refused(tally, "a body of 5 MiB", MESSAGE_ILLEGAL, () -> producer.send(large, queue));
        send(run, tally, producer);

        Message wordy = new Message(run.topic(), new byte[1]);
        wordy.putUserProperty("words", "x".repeat(32_768));
        refused(tally, "32 KiB of properties", MESSAGE_ILLEGAL, () -> producer.send(wordy, queue));
        send(run, tally, producer);

        MessageQueue absent = new MessageQueue(run.topic(), queue.getBrokerName(), 99);
        refused(tally, "a queue that is not there", NO_SUCH_QUEUE, () -> producer.send(new Message(run.topic(), new byte[1]), absent));
        send(run, tally, producer);

        Offsets.started(run, tally);
        tally.awaitConsumed();
    }

    private static void send(Run run, Tally tally, DefaultMQProducer producer) throws Exception {
        Message message = tally.next(run.topic(), "TagA");
        tally.acknowledged(message, producer.send(message));
    }

    private static void refused(Tally tally, String what, int code, Call call) throws Exception {
        int got;
        try {
            call.make();
            got = 0;
        } catch (MQBrokerException refusal) {
            got = refusal.getResponseCode();
        } catch (MQClientException refusal) {
            got = refusal.getResponseCode();
        }
        tally.check(got == code, what + " was answered with " + got + " and not " + code);
    }
}
