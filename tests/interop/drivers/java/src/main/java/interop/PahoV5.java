package interop;

import interop.Lines.Answer;
import interop.Lines.Command;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttAsyncClient;
import org.eclipse.paho.mqttv5.client.MqttCallback;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.MqttSubscription;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

/** Driver for Eclipse Paho Java, MQTT 5. */
final class PahoV5 {
    private final Map<String, MqttAsyncClient> clients = new HashMap<>();

    private static final class Callback implements MqttCallback {
        private final String name;

        Callback(String name) {
            this.name = name;
        }

        @Override
        public void disconnected(MqttDisconnectResponse response) {
            Lines.closed(name, response.getReturnCode());
        }

        @Override
        public void mqttErrorOccurred(MqttException error) {}

        @Override
        public void messageArrived(String topic, MqttMessage message) {
            Lines.message(name, topic, message.getPayload(), message.getQos(), message.isRetained(),
                    fromPaho(message.getProperties()));
        }

        @Override
        public void deliveryComplete(IMqttToken token) {}

        @Override
        public void connectComplete(boolean again, String address) {}

        @Override
        public void authPacketArrived(int reasonCode, MqttProperties properties) {}
    }

    private static List<UserProperty> users(Lines.Properties properties) {
        List<UserProperty> found = new ArrayList<>();
        for (List<String> pair : properties.users()) found.add(new UserProperty(pair.get(0), pair.get(1)));
        return found;
    }

    private static MqttProperties toPaho(Lines.Properties properties) {
        MqttProperties found = new MqttProperties();
        if (properties.contentType != null) found.setContentType(properties.contentType);
        if (properties.correlationData != null) found.setCorrelationData(properties.correlation());
        if (properties.responseTopic != null) found.setResponseTopic(properties.responseTopic);
        if (properties.messageExpiryS != null) found.setMessageExpiryInterval(properties.messageExpiryS);
        if (properties.payloadFormat != null) found.setPayloadFormat(properties.payloadFormat == 1);
        if (properties.topicAlias != null) found.setTopicAlias(properties.topicAlias);
        if (properties.willDelayS != null) found.setWillDelayInterval(properties.willDelayS);
        found.setUserProperties(users(properties));
        return found;
    }

    private static Lines.Properties fromPaho(MqttProperties properties) {
        Lines.Properties found = new Lines.Properties();
        if (properties == null) return found;
        found.contentType = properties.getContentType();
        if (properties.getCorrelationData() != null)
            found.correlationData = Lines.hex(properties.getCorrelationData());
        found.responseTopic = properties.getResponseTopic();
        found.messageExpiryS = properties.getMessageExpiryInterval();
        if (properties.getPayloadFormat()) found.payloadFormat = 1;
        for (UserProperty pair : properties.getUserProperties()) found.addUser(pair.getKey(), pair.getValue());
        if (!properties.getSubscriptionIdentifiers().isEmpty())
            found.subscriptionIds = properties.getSubscriptionIdentifiers();
        found.assignedClientId = properties.getAssignedClientIdentifier();
        found.sessionExpiryS = properties.getSessionExpiryInterval();
        found.topicAliasMaximum = properties.getTopicAliasMaximum();
        return found;
    }

    private Answer connect(Command command) throws Exception {
        MqttAsyncClient client = new MqttAsyncClient(
                command.url(), command.clientId, new MemoryPersistence());
        MqttConnectionOptions options = new MqttConnectionOptions();
        options.setCleanStart(command.cleanStart);
        options.setKeepAliveInterval(command.keepAliveS);
        if (command.tls != null) options.setSocketFactory(Certificates.sockets(command.tls));
        options.setUseSubscriptionIdentifiers(false); // the test chooses them
        options.setSessionExpiryInterval(command.properties.sessionExpiryS);
        if (command.properties.receiveMaximum != null) options.setReceiveMaximum(command.properties.receiveMaximum);
        if (command.properties.topicAliasMaximum != null)
            options.setTopicAliasMaximum(command.properties.topicAliasMaximum);
        options.setUserProperties(users(command.properties));
        if (command.will != null) {
            MqttMessage will = new MqttMessage(Lines.bytes(command.will.payload));
            will.setQos(command.will.qos);
            will.setRetained(command.will.retain);
            options.setWill(command.will.topic, will);
            options.setWillMessageProperties(toPaho(command.will.properties));
        }
        client.setCallback(new Callback(command.name));
        Answer answer = new Answer();
        try {
            IMqttToken token = client.connect(options);
            token.waitForCompletion(Lines.DEADLINE_MS);
            answer.sessionPresent = token.getSessionPresent();
            answer.properties = fromPaho(token.getResponseProperties());
        } catch (MqttException error) {
            client.close();
            throw new Lines.Refused(error.toString(), error.getReasonCode());
        }
        answer.reasonCode = 0;
        clients.put(command.name, client);
        return answer;
    }

    private static Answer subscribe(MqttAsyncClient client, Command command) throws Exception {
        List<MqttSubscription> wanted = new ArrayList<>();
        for (Lines.Filter one : command.subscriptions()) {
            MqttSubscription subscription = new MqttSubscription(one.filter, one.qos);
            subscription.setNoLocal(one.noLocal);
            subscription.setRetainAsPublished(one.retainAsPublished);
            subscription.setRetainHandling(one.retainHandling);
            wanted.add(subscription);
        }
        MqttProperties properties = new MqttProperties();
        if (command.subscriptionId != null)
            properties.setSubscriptionIdentifier(command.subscriptionId);
        IMqttToken token = client.subscribe(wanted.toArray(MqttSubscription[]::new), null, null, properties);
        token.waitForCompletion(Lines.DEADLINE_MS);
        Answer answer = new Answer();
        answer.reasonCodes = token.getReasonCodes();
        return answer;
    }

    private static Answer publish(MqttAsyncClient client, Command command) throws Exception {
        MqttMessage message = new MqttMessage(Lines.bytes(command.payload));
        message.setQos(command.qos);
        message.setRetained(command.retain);
        message.setProperties(toPaho(command.properties));
        IMqttToken token = client.publish(command.topic, message);
        token.waitForCompletion(Lines.DEADLINE_MS);
        Answer answer = new Answer();
        int[] codes = token.getReasonCodes();
        if (codes != null && codes.length > 0) answer.reasonCode = codes[0];
        return answer;
    }

    private Answer handle(Command command) throws Exception {
        if (command.verb.equals("connect")) return connect(command);
        MqttAsyncClient client = clients.get(command.name);
        switch (command.verb) {
            case "subscribe":
                return subscribe(client, command);
            case "unsubscribe":
                client.unsubscribe(command.filterNames()).waitForCompletion(Lines.DEADLINE_MS);
                break;
            case "publish":
                return publish(client, command);
            case "disconnect":
                clients.remove(command.name);
                client.disconnect(0, null, null, command.reasonCode, new MqttProperties())
                        .waitForCompletion(Lines.DEADLINE_MS);
                client.close();
                break;
            case "drop":
                clients.remove(command.name);
                client.disconnectForcibly(0, 0, false); // it may not have noticed yet
                client.close(true);
                break;
            default:
                throw new IllegalArgumentException(command.verb);
        }
        return new Answer();
    }

    public static void main(String[] arguments) throws Exception {
        Lines.serve("Paho Java mqttv5", new PahoV5()::handle);
    }
}
