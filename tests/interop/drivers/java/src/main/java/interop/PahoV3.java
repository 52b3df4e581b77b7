package interop;

import interop.Lines.Answer;
import interop.Lines.Command;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.IMqttToken;
import org.eclipse.paho.client.mqttv3.MqttAsyncClient;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Driver for Eclipse Paho Java, MQTT 3.1 and 3.1.1. */
final class PahoV3 {
    private final Map<String, MqttAsyncClient> clients = new HashMap<>();

    private static final class Callback implements MqttCallback {
        private final String name;

        Callback(String name) {
            this.name = name;
        }

        @Override
        public void connectionLost(Throwable cause) {
            Lines.closed(name, null);
        }

        @Override
        public void messageArrived(String topic, MqttMessage message) {
            Lines.message(name, topic, message.getPayload(), message.getQos(), message.isRetained(),
                    new Lines.Properties());
        }

        @Override
        public void deliveryComplete(IMqttDeliveryToken token) {}
    }

    private Answer connect(Command command) throws Exception {
        MqttAsyncClient client = new MqttAsyncClient(
                command.url(), command.clientId, new MemoryPersistence());
        MqttConnectOptions options = new MqttConnectOptions();
        options.setMqttVersion(command.version);
        options.setCleanSession(command.cleanStart);
        options.setKeepAliveInterval(command.keepAliveS);
        if (command.tls != null) options.setSocketFactory(Certificates.sockets(command.tls));
        if (command.will != null)
            options.setWill(command.will.topic, Lines.bytes(command.will.payload), command.will.qos,
                    command.will.retain);
        client.setCallback(new Callback(command.name));
        Answer answer = new Answer();
        try {
            IMqttToken token = client.connect(options);
            token.waitForCompletion(Lines.DEADLINE_MS);
            answer.sessionPresent = token.getSessionPresent();
        } catch (MqttException error) {
            client.close();
            throw new Lines.Refused(error.toString(), error.getReasonCode());
        }
        answer.reasonCode = 0;
        clients.put(command.name, client);
        return answer;
    }

    private static Answer subscribe(MqttAsyncClient client, Command command) throws Exception {
        Lines.Filter[] wanted = command.subscriptions();
        String[] filters = Arrays.stream(wanted).map(one -> one.filter).toArray(String[]::new);
        int[] qos = Arrays.stream(wanted).mapToInt(one -> one.qos).toArray();
        IMqttToken token = client.subscribe(filters, qos);
        token.waitForCompletion(Lines.DEADLINE_MS);
        Answer answer = new Answer();
        answer.reasonCodes = token.getGrantedQos();
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
                client.publish(command.topic, Lines.bytes(command.payload), command.qos, command.retain)
                        .waitForCompletion(Lines.DEADLINE_MS);
                break;
            case "disconnect":
                clients.remove(command.name);
                client.disconnect().waitForCompletion(Lines.DEADLINE_MS);
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
        Lines.serve("Paho Java mqttv3", new PahoV3()::handle);
    }
}
