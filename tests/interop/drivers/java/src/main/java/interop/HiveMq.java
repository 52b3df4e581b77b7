package interop;

import com.hivemq.client.mqtt.MqttClientSslConfig;
import interop.Lines.Answer;
import interop.Lines.Command;
import java.util.HashMap;
import java.util.Map;

/** Driver for HiveMQ's Java client; a connection is of 3.1.1 or of 5. */
final class HiveMq {
    /** One connection, whatever its version. */
    interface Connection {
        Answer connect(Command command) throws Exception;

        Answer subscribe(Command command) throws Exception;

        Answer unsubscribe(Command command) throws Exception;

        Answer publish(Command command) throws Exception;

        Answer disconnect(Command command) throws Exception;
    }

    private final Map<String, Connection> connections = new HashMap<>();

    /** Null where the command wants none. */
    static MqttClientSslConfig tls(Command command) throws Exception {
        if (command.tls == null) return null;
        return MqttClientSslConfig.builder()
                .trustManagerFactory(Certificates.trusted(command.tls))
                .keyManagerFactory(Certificates.own(command.tls))
                .build();
    }

    private Answer handle(Command command) throws Exception {
        if (command.verb.equals("connect")) {
            Connection connection = command.version == 5 ? new HiveMqV5(command) : new HiveMqV3(command);
            Answer answer = connection.connect(command);
            connections.put(command.name, connection);
            return answer;
        }
        Connection connection = connections.get(command.name);
        return switch (command.verb) {
            case "subscribe" -> connection.subscribe(command);
            case "unsubscribe" -> connection.unsubscribe(command);
            case "publish" -> connection.publish(command);
            case "disconnect" -> connections.remove(command.name).disconnect(command);
            case "drop" -> {
                connections.remove(command.name);
                yield new Answer();
            }
            default -> throw new IllegalArgumentException(command.verb);
        };
    }

    public static void main(String[] arguments) throws Exception {
        Lines.serve("HiveMQ MQTT Client", new HiveMq()::handle);
    }
}
