package org.quorumlog.interop;

import java.util.Arrays;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.exception.RemotingException;

/**
 * {@code Load <name server> <topic> <outstanding> <messages> <bytes>}: sends by the stock producer, one after another
 * or with many unanswered, and prints how fast. The first tenth warms up, and is not counted.
 */
public final class Load {
    private final DefaultMQProducer producer = new DefaultMQProducer("load");
    private final String topic;
    private final byte[] body;
    private final int outstanding;
    private final AtomicInteger failed = new AtomicInteger();

    private Load(String nameServer, String topic, int outstanding, int bytes) throws MQClientException {
        this.topic = topic;
        this.outstanding = outstanding;
        this.body = new byte[bytes];
        producer.setNamesrvAddr(nameServer);
        producer.setSendMsgTimeout(20_000);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setRetryTimesWhenSendAsyncFailed(0);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.start();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 5) {
            System.err.println("usage: Load <name server> <topic> <outstanding> <messages> <bytes>");
            System.exit(2);
        }
        int messages = Integer.parseInt(arguments[3]);
        Load load = new Load(
            arguments[0], arguments[1], Integer.parseInt(arguments[2]), Integer.parseInt(arguments[4]));
        load.createTopic();
        load.send(messages / 10);
        load.failed.set(0);
        long start = System.nanoTime();
        long[] nanos = load.send(messages);
        double seconds = (System.nanoTime() - start) / 1e9;
        Arrays.sort(nanos);
        System.out.printf("LOAD outstanding=%d messages=%d failed=%d perSecond=%d p50Micros=%d p99Micros=%d%n",
            load.outstanding, messages, load.failed.get(), Math.round((messages - load.failed.get()) / seconds),
            nanos[messages / 2] / 1_000, nanos[messages * 99 / 100] / 1_000);
        load.producer.shutdown();
        System.exit(load.failed.get() == 0 ? 0 : 1);
    }

    /** The first send creates the topic, and may find that nobody leads yet. */
    private void createTopic() throws InterruptedException {
        boolean created = Run.await(() -> {
            try {
                return producer.send(new Message(topic, body)).getSendStatus() == SendStatus.SEND_OK;
            } catch (MQClientException | RemotingException | MQBrokerException notYet) {
                return false;
            } catch (InterruptedException interrupted) {
                throw new IllegalStateException(interrupted);
            }
        });
        if (!created) {
            throw new IllegalStateException("no message can be sent");
        }
    }

    /** How long each of {@code count} messages took. */
    private long[] send(int count) throws Exception {
        long[] nanos = new long[count];
        if (outstanding > 1) {
            sendWithoutWaiting(nanos);
            return nanos;
        }
        for (int at = 0; at < count; at++) {
            long start = System.nanoTime();
            try {
                note(producer.send(new Message(topic, body)));
            } catch (MQClientException | RemotingException | MQBrokerException failure) {
                failed.incrementAndGet();
            }
            nanos[at] = System.nanoTime() - start;
        }
        return nanos;
    }

    private void sendWithoutWaiting(long[] nanos) throws Exception {
        Semaphore places = new Semaphore(outstanding);
        for (int sent = 0; sent < nanos.length; sent++) {
            places.acquire();
            int at = sent;
            long start = System.nanoTime();
            producer.send(new Message(topic, body), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    note(result);
                    end();
                }

                @Override
                public void onException(Throwable failure) {
                    failed.incrementAndGet();
                    end();
                }

                private void end() {
                    nanos[at] = System.nanoTime() - start;
                    places.release();
                }
            });
        }
        places.acquire(outstanding);
    }

    private void note(SendResult result) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            failed.incrementAndGet();
        }
    }
}
