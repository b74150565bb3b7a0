package org.quorumlog.interop.scenarios;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.MessageQueueSelector;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** The steps of an order go to one queue by a selector, and an orderly consumer gets them in their order. */
public final class Orderly implements Scenario {
    private static final int STEPS = 10;

    @Override
    public String name() {
        return "orderly";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        tally.expectOrder();
        int orders = Run.count(10);
        DefaultMQProducer producer = run.producer();
        MessageQueueSelector byOrder = (queues, message, order) -> queues.get((Integer) order % queues.size());
        Map<Integer, MessageQueue> queueOfOrder = new ConcurrentHashMap<>();
        for (int step = 0; step < STEPS; step++) {
            for (int order = 0; order < orders; order++) {
                Message message = tally.next(run.topic(), "Step");
                message.putUserProperty("order", Integer.toString(order));
                message.putUserProperty("step", Integer.toString(step));
                SendResult result = producer.send(message, byOrder, order);
                tally.acknowledged(message, result);
                MessageQueue before = queueOfOrder.put(order, result.getMessageQueue());
                tally.check(before == null || before.equals(result.getMessageQueue()), "the selector was not followed");
            }
        }

        Map<String, Integer> nextStep = new ConcurrentHashMap<>();
        AtomicBoolean suspended = new AtomicBoolean();
        DefaultMQPushConsumer consumer = run.consumer(run.named("consumer"));
        consumer.subscribe(run.topic(), "*");
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            MessageExt message = messages.get(0);
            boolean isThirdOfFirst = "0".equals(message.getUserProperty("order")) && "2".equals(message.getUserProperty("step"));
            if (isThirdOfFirst && suspended.compareAndSet(false, true)) {
                context.setSuspendCurrentQueueTimeMillis(200);
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            tally.consumed(message);
            checkStep(message, nextStep, tally);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        tally.awaitConsumed();
        tally.check(suspended.get(), "no message was suspended");
    }

    /** Each order's steps come one after another; one that comes again is an earlier one. */
    private static void checkStep(MessageExt message, Map<String, Integer> nextSteps, Tally tally) {
        String order = message.getUserProperty("order");
        int step = Integer.parseInt(message.getUserProperty("step"));
        int next = nextSteps.getOrDefault(order, 0);
        tally.check(step <= next, "step " + step + " of order " + order + " came before step " + next);
        nextSteps.put(order, Math.max(next, step + 1));
    }
}
