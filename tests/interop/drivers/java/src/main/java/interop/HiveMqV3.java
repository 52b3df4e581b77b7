package interop;

import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt3.exceptions.Mqtt3ConnAckException;
import com.hivemq.client.mqtt.mqtt3.message.connect.Mqtt3Connect;
import com.hivemq.client.mqtt.mqtt3.message.publish.Mqtt3Publish;
import com.hivemq.client.mqtt.mqtt3.message.subscribe.Mqtt3Subscribe;
import com.hivemq.client.mqtt.mqtt3.message.subscribe.Mqtt3Subscription;
import com.hivemq.client.mqtt.mqtt3.message.unsubscribe.Mqtt3Unsubscribe;
import interop.Lines.Answer;
import interop.Lines.Command;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client with MQTT 3.1.1. */
final class HiveMqV3 implements HiveMq.Connection {
    private final Mqtt3AsyncClient client;

    HiveMqV3(Command command) throws Exception {
        client = MqttClient.builder()
                .useMqttVersion3()
                .sslConfig(HiveMq.tls(command))
                .identifier(command.clientId)
                .serverHost(command.host)
                .serverPort(command.port)
                .addDisconnectedListener(context -> Lines.closed(command.name, null))
                .buildAsync();
        client.publishes(MqttGlobalPublishFilter.ALL, one -> Lines.message(command.name, one.getTopic().toString(),
                one.getPayloadAsBytes(), one.getQos().getCode(), one.isRetain(), new Lines.Properties()));
    }

    private static <T> T wait(CompletableFuture<T> future) throws Exception {
        return future.get(Lines.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }

    private static Mqtt3Publish publish(String topic, String payload, int qos, boolean retain) {
        return Mqtt3Publish.builder()
                .topic(topic)
                .payload(Lines.bytes(payload))
                .qos(MqttQos.fromCode(qos))
                .retain(retain)
                .build();
    }

    @Override
    public Answer connect(Command command) throws Exception {
        var packet = Mqtt3Connect.builder().cleanSession(command.cleanStart).keepAlive(command.keepAliveS);
        if (command.will != null)
            packet.willPublish(publish(command.will.topic, command.will.payload, command.will.qos,
                    command.will.retain));
        Answer answer = new Answer();
        try {
            answer.sessionPresent = wait(client.connect(packet.build())).isSessionPresent();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof Mqtt3ConnAckException refused)
                throw new Lines.Refused(refused.toString(), refused.getMqttMessage().getReturnCode().getCode());
            throw error;
        }
        answer.reasonCode = 0;
        return answer;
    }

    @Override
    public Answer subscribe(Command command) throws Exception {
        List<Mqtt3Subscription> wanted = new ArrayList<>();
        for (Lines.Filter one : command.subscriptions())
            wanted.add(Mqtt3Subscription.builder()
                    .topicFilter(one.filter)
                    .qos(MqttQos.fromCode(one.qos))
                    .build());
        var suback = wait(client.subscribe(Mqtt3Subscribe.builder().addSubscriptions(wanted).build()));
        Answer answer = new Answer();
        answer.reasonCodes = suback.getReturnCodes().stream().mapToInt(code -> code.getCode()).toArray();
        return answer;
    }

    @Override
    public Answer unsubscribe(Command command) throws Exception {
        var packet = Mqtt3Unsubscribe.builder();
        var filters = Arrays.stream(command.filterNames())
                .map(com.hivemq.client.mqtt.datatypes.MqttTopicFilter::of);
        wait(client.unsubscribe(packet.addTopicFilters(filters).build()));
        return new Answer();
    }

    @Override
    public Answer publish(Command command) throws Exception {
        wait(client.publish(publish(command.topic, command.payload, command.qos, command.retain)));
        return new Answer();
    }

    @Override
    public Answer disconnect(Command command) throws Exception {
        wait(client.disconnect());
        return new Answer();
    }
}
