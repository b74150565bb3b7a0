package org.quorumlog.interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * What was sent, acknowledged and consumed, by the text of the message, and what must hold of it: all that was
 * acknowledged is consumed, at the place that the acknowledgement named, and nothing is consumed that was not sent.
 */
public final class Tally {
    /** Where a message lies, as SEND_OK and the consumed message name it. */
    private record Place(MessageQueue queue, long offset) {
    }

    private static final class Fate {
        private Place acknowledged;
        private boolean isAcknowledged;
        private long acknowledgedAt;
        private int consumed;
        private final List<Place> places = new ArrayList<>();
    }

    private final String prefix;
    private final Map<String, Fate> fates = new LinkedHashMap<>();
    private final Map<Place, String> contents = new HashMap<>();
    private final Map<MessageQueue, Long> lastFirstDelivery = new HashMap<>();
    private final List<String> failures = new ArrayList<>();
    private final Map<String, Long> extra = new TreeMap<>();
    private boolean sentInOrder = true;
    private boolean inOrder;
    private long slowest;
    private int duplicated;
    private int phantom;

    Tally(String scenario) {
        this.prefix = scenario + " message ";
    }

    /** From now on each queue must be consumed in order; for an orderly or a single-threaded listener. */
    public synchronized void expectOrder() {
        inOrder = true;
    }

    /** A new message, counted as sent. */
    public synchronized Message next(String topic, String tag) {
        String text = prefix + fates.size();
        fates.put(text, new Fate());
        return new Message(topic, tag, "key-" + (fates.size() - 1), text.getBytes(StandardCharsets.UTF_8));
    }

    /** The client got {@code result} for {@code message}, and it names the place where the message lies. */
    public synchronized void acknowledged(Message message, SendResult result) {
        if (accepted(message, result)) {
            fate(message).acknowledged = new Place(result.getMessageQueue(), result.getQueueOffset());
        }
    }

    /** As {@link #acknowledged}, where the place in {@code result} is not where consumers find the message. */
    public synchronized void acknowledgedElsewhere(Message message, SendResult result) {
        accepted(message, result);
    }

    /** One result for several messages, which lie one behind another. */
    public synchronized void acknowledgedBatch(List<Message> batch, SendResult result) {
        for (int at = 0; at < batch.size(); at++) {
            if (accepted(batch.get(at), result)) {
                fate(batch.get(at)).acknowledged = new Place(result.getMessageQueue(), result.getQueueOffset() + at);
            }
        }
    }

    private boolean accepted(Message message, SendResult result) {
        check(result.getSendStatus() == SendStatus.SEND_OK, "send status " + result.getSendStatus());
        boolean accepted = result.getSendStatus() == SendStatus.SEND_OK;
        fate(message).isAcknowledged |= accepted;
        fate(message).acknowledgedAt = System.nanoTime();
        return accepted;
    }

    private Fate fate(Message message) {
        return fates.get(new String(message.getBody(), StandardCharsets.UTF_8));
    }

    /** A listener got {@code message}, which was not sent back before. */
    public synchronized void consumed(MessageExt message) {
        String text = new String(message.getBody(), StandardCharsets.UTF_8);
        Place place = new Place(
            new MessageQueue(message.getTopic(), message.getBrokerName(), message.getQueueId()), message.getQueueOffset());
        String before = contents.putIfAbsent(place, text);
        check(before == null || before.equals(text), "two messages at " + place + ": " + before + " and " + text);
        Fate fate = fates.get(text);
        if (fate == null) {
            phantom++;
            return;
        }
        fate.consumed++;
        fate.places.add(place);
        if (fate.consumed > 1) {
            duplicated++;
            return;
        }
        slowest = Math.max(slowest, fate.isAcknowledged ? System.nanoTime() - fate.acknowledgedAt : 0);
        if (inOrder) {
            Long last = lastFirstDelivery.put(place.queue, place.offset);
            check(last == null || last < place.offset, "offset " + place.offset + " after " + last + " in " + place.queue);
        }
    }

    /** How many messages have been consumed at least once. */
    public synchronized int consumed() {
        return (int) fates.values().stream().filter(fate -> fate.consumed > 0).count();
    }

    /** How many messages have been consumed more than once. */
    public synchronized int duplicated() {
        return duplicated;
    }

    /** Waits until all that was acknowledged so far has been consumed; if it never is, the scenario ends here. */
    public void awaitConsumed() throws InterruptedException {
        if (!Run.await(() -> lost() == 0)) {
            throw new AssertionError("waited in vain for messages");
        }
    }

    /** The longest time from an acknowledgement to the first consumption, in nanoseconds. */
    public synchronized long slowest() {
        return slowest;
    }

    private synchronized int lost() {
        return (int) fates.values().stream().filter(fate -> fate.isAcknowledged && fate.consumed == 0).count();
    }

    private synchronized int acknowledged() {
        return (int) fates.values().stream().filter(fate -> fate.isAcknowledged).count();
    }

    /** A figure for the summary line. */
    public synchronized void figure(String name, long value) {
        extra.put(name, value);
    }

    /** Notes a failure unless {@code condition}. */
    public synchronized void check(boolean condition, String failure) {
        if (!condition) {
            fail(failure);
        }
    }

    /** Notes a failure. The first few say enough. */
    public synchronized void fail(String failure) {
        if (failures.size() < 5) {
            failures.add(failure);
        }
    }

    /** Holds what was consumed against what was sent. */
    synchronized void close() {
        check(lost() == 0, lost() + " acknowledged messages were not consumed");
        check(phantom == 0, phantom + " messages were consumed that nobody sent");
        Map<MessageQueue, Long> last = new HashMap<>();
        fates.forEach((text, fate) -> {
            if (fate.acknowledged == null) {
                return;
            }
            check(fate.places.isEmpty() || fate.places.contains(fate.acknowledged),
                text + " acknowledged at " + fate.acknowledged + ", consumed at " + fate.places);
            Long before = last.put(fate.acknowledged.queue, fate.acknowledged.offset);
            boolean ascends = before == null || before < fate.acknowledged.offset;
            check(!sentInOrder || ascends, text + " lies before one that was acknowledged before it was sent");
        });
    }

    /** Messages were sent without waiting for each other, so their order among them is not determined. */
    public synchronized void sentConcurrently() {
        sentInOrder = false;
    }

    synchronized boolean held() {
        return failures.isEmpty();
    }

    synchronized List<String> failures() {
        return failures;
    }

    synchronized String counts() {
        StringBuilder line = new StringBuilder();
        line.append("sent=").append(fates.size()).append(" acknowledged=").append(acknowledged());
        line.append(" consumed=").append(consumed()).append(" duplicated=").append(duplicated);
        line.append(" lost=").append(lost()).append(" phantom=").append(phantom);
        extra.forEach((name, value) -> line.append(' ').append(name).append('=').append(value));
        return line.toString();
    }
}
