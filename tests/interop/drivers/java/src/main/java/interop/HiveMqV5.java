package interop;

import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.datatypes.MqttTopicFilter;
import com.hivemq.client.mqtt.mqtt5.Mqtt5AsyncClient;
import com.hivemq.client.mqtt.mqtt5.datatypes.Mqtt5UserProperties;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5ConnAckException;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5DisconnectException;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5SubAckException;
import com.hivemq.client.mqtt.mqtt5.message.connect.Mqtt5Connect;
import com.hivemq.client.mqtt.mqtt5.message.connect.connack.Mqtt5ConnAck;
import com.hivemq.client.mqtt.mqtt5.message.disconnect.Mqtt5Disconnect;
import com.hivemq.client.mqtt.mqtt5.message.disconnect.Mqtt5DisconnectReasonCode;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5PayloadFormatIndicator;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5PublishBuilderBase;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5PublishResult;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5WillPublish;
import com.hivemq.client.mqtt.mqtt5.message.subscribe.Mqtt5RetainHandling;
import com.hivemq.client.mqtt.mqtt5.message.subscribe.Mqtt5Subscribe;
import com.hivemq.client.mqtt.mqtt5.message.subscribe.Mqtt5Subscription;
import com.hivemq.client.mqtt.mqtt5.message.subscribe.suback.Mqtt5SubAck;
import com.hivemq.client.mqtt.mqtt5.message.unsubscribe.Mqtt5Unsubscribe;
import interop.Lines.Answer;
import interop.Lines.Command;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client with MQTT 5. */
final class HiveMqV5 implements HiveMq.Connection {
    private final Mqtt5AsyncClient client;

    HiveMqV5(Command command) throws Exception {
        var builder = MqttClient.builder()
                .useMqttVersion5()
                .sslConfig(HiveMq.tls(command))
                .serverHost(command.host)
                .serverPort(command.port)
                .addDisconnectedListener(context -> Lines.closed(command.name,
                        context.getCause() instanceof Mqtt5DisconnectException told
                                ? told.getMqttMessage().getReasonCode().getCode()
                                : null));
        client = (command.clientId.isEmpty() ? builder : builder.identifier(command.clientId)).buildAsync();
        client.publishes(MqttGlobalPublishFilter.ALL, one -> Lines.message(command.name, one.getTopic().toString(),
                one.getPayloadAsBytes(), one.getQos().getCode(), one.isRetain(), fromHiveMq(one)));
    }

    private static <T> T wait(CompletableFuture<T> future) throws Exception {
        return future.get(Lines.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }

    private static byte[] bytes(ByteBuffer buffer) {
        byte[] found = new byte[buffer.remaining()];
        buffer.duplicate().get(found);
        return found;
    }

    private static Mqtt5UserProperties users(Lines.Properties properties) {
        var found = Mqtt5UserProperties.builder();
        for (List<String> pair : properties.users()) found.add(pair.get(0), pair.get(1));
        return found.build();
    }

    private static Lines.Properties fromHiveMq(Mqtt5Publish publish) {
        Lines.Properties found = new Lines.Properties();
        publish.getContentType().ifPresent(value -> found.contentType = value.toString());
        publish.getCorrelationData().ifPresent(value -> found.correlationData = Lines.hex(bytes(value)));
        publish.getResponseTopic().ifPresent(value -> found.responseTopic = value.toString());
        publish.getMessageExpiryInterval().ifPresent(value -> found.messageExpiryS = value);
        publish.getPayloadFormatIndicator().ifPresent(value -> found.payloadFormat = value.getCode());
        publish.getUserProperties()
                .asList()
                .forEach(pair -> found.addUser(pair.getName().toString(), pair.getValue().toString()));
        return found;
    }

    private static <B extends Mqtt5PublishBuilderBase.Complete<B>> B describe(B builder, Lines.Properties properties) {
        if (properties.contentType != null) builder = builder.contentType(properties.contentType);
        if (properties.correlationData != null) builder = builder.correlationData(properties.correlation());
        if (properties.responseTopic != null) builder = builder.responseTopic(properties.responseTopic);
        if (properties.messageExpiryS != null) builder = builder.messageExpiryInterval(properties.messageExpiryS);
        if (properties.payloadFormat != null)
            builder = builder.payloadFormatIndicator(Mqtt5PayloadFormatIndicator.fromCode(properties.payloadFormat));
        return builder.userProperties(users(properties));
    }

    private static Answer of(Mqtt5ConnAck connack) {
        Answer answer = new Answer();
        answer.sessionPresent = connack.isSessionPresent();
        answer.reasonCode = connack.getReasonCode().getCode();
        answer.properties = new Lines.Properties();
        connack.getAssignedClientIdentifier()
                .ifPresent(value -> answer.properties.assignedClientId = value.toString());
        connack.getSessionExpiryInterval().ifPresent(value -> answer.properties.sessionExpiryS = value);
        return answer;
    }

    @Override
    public Answer connect(Command command) throws Exception {
        var packet = Mqtt5Connect.builder()
                .cleanStart(command.cleanStart)
                .keepAlive(command.keepAliveS)
                .userProperties(users(command.properties));
        Lines.Properties properties = command.properties;
        if (properties.sessionExpiryS != null) packet.sessionExpiryInterval(properties.sessionExpiryS);
        var restrictions = packet.restrictions();
        if (properties.receiveMaximum != null) restrictions.receiveMaximum(properties.receiveMaximum);
        if (properties.topicAliasMaximum != null) restrictions.topicAliasMaximum(properties.topicAliasMaximum);
        restrictions.applyRestrictions();
        if (command.will != null) {
            var will = Mqtt5WillPublish.builder()
                    .topic(command.will.topic)
                    .payload(Lines.bytes(command.will.payload))
                    .qos(MqttQos.fromCode(command.will.qos))
                    .retain(command.will.retain);
            will = describe(will, command.will.properties);
            if (command.will.properties.willDelayS != null)
                will = will.delayInterval(command.will.properties.willDelayS);
            packet.willPublish(will.build());
        }
        try {
            return of(wait(client.connect(packet.build())));
        } catch (ExecutionException error) {
            if (error.getCause() instanceof Mqtt5ConnAckException refused)
                throw new Lines.Refused(refused.toString(), refused.getMqttMessage().getReasonCode().getCode());
            throw error;
        }
    }

    private Mqtt5SubAck suback(Mqtt5Subscribe packet) throws Exception {
        try {
            return wait(client.subscribe(packet));
        } catch (ExecutionException error) { // the library's answer when a filter is refused
            if (error.getCause() instanceof Mqtt5SubAckException refused) return refused.getMqttMessage();
            throw error;
        }
    }

    @Override
    public Answer subscribe(Command command) throws Exception {
        List<Mqtt5Subscription> wanted = new ArrayList<>();
        for (Lines.Filter one : command.subscriptions())
            wanted.add(Mqtt5Subscription.builder()
                    .topicFilter(one.filter)
                    .qos(MqttQos.fromCode(one.qos))
                    .noLocal(one.noLocal)
                    .retainAsPublished(one.retainAsPublished)
                    .retainHandling(Mqtt5RetainHandling.fromCode(one.retainHandling))
                    .build());
        Answer answer = new Answer();
        answer.reasonCodes = suback(Mqtt5Subscribe.builder().addSubscriptions(wanted).build()).getReasonCodes().stream()
                .mapToInt(code -> code.getCode())
                .toArray();
        return answer;
    }

    @Override
    public Answer unsubscribe(Command command) throws Exception {
        var filters = Arrays.stream(command.filterNames()).map(MqttTopicFilter::of);
        wait(client.unsubscribe(Mqtt5Unsubscribe.builder().addTopicFilters(filters).build()));
        return new Answer();
    }

    @Override
    public Answer publish(Command command) throws Exception {
        var packet = Mqtt5Publish.builder()
                .topic(command.topic)
                .payload(Lines.bytes(command.payload))
                .qos(MqttQos.fromCode(command.qos))
                .retain(command.retain);
        Mqtt5PublishResult result = wait(client.publish(describe(packet, command.properties).build()));
        Answer answer = new Answer();
        if (result.getError().isPresent()) throw new Exception(result.getError().get());
        if (result instanceof Mqtt5PublishResult.Mqtt5Qos1Result acknowledged)
            answer.reasonCode = acknowledged.getPubAck().getReasonCode().getCode();
        if (result instanceof Mqtt5PublishResult.Mqtt5Qos2Result acknowledged)
            answer.reasonCode = acknowledged.getPubRec().getReasonCode().getCode();
        return answer;
    }

    @Override
    public Answer disconnect(Command command) throws Exception {
        wait(client.disconnect(Mqtt5Disconnect.builder()
                .reasonCode(Mqtt5DisconnectReasonCode.fromCode(command.reasonCode))
                .build()));
        return new Answer();
    }
}
