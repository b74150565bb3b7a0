package org.quorumlog.interop.scenarios;

import java.util.HashSet;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.quorumlog.interop.Run;
import org.quorumlog.interop.Scenario;
import org.quorumlog.interop.Tally;

/** Creates a topic by the stock admin client, gives it more queues while it is in use, and deletes it. */
public final class AdminTopic implements Scenario {
    private static final String AUTO_CREATE_TOPIC = "TBW102";

    @Override
    public String name() {
        return "admin-topic";
    }

    @Override
    public void play(Run run, Tally tally) throws Exception {
        DefaultMQAdminExt admin = run.admin();
        Set<String> brokers = new HashSet<>();
        String cluster = "";
        for (var broker : admin.examineTopicRouteInfo(AUTO_CREATE_TOPIC).getBrokerDatas()) {
            brokers.add(broker.getBrokerAddrs().get(0L));
            cluster = broker.getCluster();
        }
        configure(admin, brokers, run.topic(), 2);
        DefaultMQProducer producer = run.producer();
        checkQueues(producer, run.topic(), brokers.size() * 2, tally);
        sendToEach(producer, run, tally);

        configure(admin, brokers, run.topic(), 6);
        checkQueues(producer, run.topic(), brokers.size() * 6, tally);
        sendToEach(producer, run, tally);
        DefaultMQPushConsumer consumer = Offsets.started(run, tally);
        tally.awaitConsumed();
        consumer.shutdown();

        admin.deleteTopicInBroker(brokers, run.topic());
        Set<String> nameServers = Set.of(admin.getNamesrvAddr().split(";"));
        // The client changed the order of its arguments.
        if (MQVersion.CURRENT_VERSION < MQVersion.Version.V5_0_0.ordinal()) {
            admin.deleteTopicInNameServer(nameServers, run.topic(), cluster);
        } else {
            admin.deleteTopicInNameServer(nameServers, cluster, run.topic());
        }
        boolean gone = Run.await(() -> queues(producer, run.topic()) == 0);
        tally.check(gone, "a deleted topic still has queues");
    }

    private static void configure(DefaultMQAdminExt admin, Set<String> brokers, String topic, int queues)
        throws Exception {
        TopicConfig config = new TopicConfig(topic);
        config.setReadQueueNums(queues);
        config.setWriteQueueNums(queues);
        for (String broker : brokers) {
            admin.createAndUpdateTopicConfig(broker, config);
        }
    }

    private static void checkQueues(DefaultMQProducer producer, String topic, int expected, Tally tally)
        throws InterruptedException {
        boolean reached = Run.await(() -> queues(producer, topic) == expected);
        tally.check(reached, "the topic has " + queues(producer, topic) + " queues and not " + expected);
    }

    private static int queues(DefaultMQProducer producer, String topic) {
        try {
            return producer.fetchPublishMessageQueues(topic).size();
        } catch (MQClientException missing) {
            return 0;
        }
    }

    private static void sendToEach(DefaultMQProducer producer, Run run, Tally tally) throws Exception {
        for (MessageQueue queue : producer.fetchPublishMessageQueues(run.topic())) {
            Message message = tally.next(run.topic(), "TagA");
            tally.acknowledged(message, producer.send(message, queue));
        }
    }
}
