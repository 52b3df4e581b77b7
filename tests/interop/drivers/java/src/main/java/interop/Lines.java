package interop;

import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/** The line protocol of ../README.md: commands on stdin, answers and events on stdout. */
final class Lines {
    static final long DEADLINE_MS = 60_000;
    private static final Gson GSON = new GsonBuilder()
            .setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES)
            .create();
    private static final PrintStream OUT = System.out;

    private Lines() {}

    /** A null field is a property that the packet does not have. */
    static final class Properties {
        Long sessionExpiryS;
        Integer receiveMaximum;
        Integer topicAliasMaximum;
        List<List<String>> userProperties;
        String contentType;
        String correlationData;
        String responseTopic;
        Long messageExpiryS;
        Integer payloadFormat;
        Integer topicAlias;
        Long willDelayS;
        List<Integer> subscriptionIds;
        String assignedClientId;

        List<List<String>> users() {
            return userProperties == null ? List.of() : userProperties;
        }

        void addUser(String key, String value) {
            if (userProperties == null) userProperties = new ArrayList<>();
            userProperties.add(List.of(key, value));
        }

        byte[] correlation() {
            return correlationData == null ? null : bytes(correlationData);
        }
    }

    static final class Will {
        String topic;
        String payload;
        int qos;
        boolean retain;
        Properties properties;
    }

    /** PEM files; certificate and key are null where the client has none. */
    static final class Tls {
        String ca;
        String certificate;
        String key;
    }

    static final class Filter {
        String filter;
        int qos;
        boolean noLocal;
        boolean retainAsPublished;
        int retainHandling;
    }

    /** All commands' fields; filters differ in shape and are read by their command. */
    static final class Command {
        int id;
        @com.google.gson.annotations.SerializedName("do")
        String verb;
        String name;
        String host;
        int port;
        int version;
        String clientId;
        boolean cleanStart;
        int keepAliveS;
        Tls tls;
        Will will;

        String url() {
            return (tls == null ? "tcp://" : "ssl://") + host + ":" + port;
        }

        Properties properties;
        JsonElement filters;
        Integer subscriptionId;
        String topic;
        String payload;
        int qos;
        boolean retain;
        int reasonCode;

        Filter[] subscriptions() {
            return GSON.fromJson(filters, Filter[].class);
        }

        String[] filterNames() {
            return GSON.fromJson(filters, String[].class);
        }
    }

    /** A null field is not told. */
    static final class Answer {
        Integer id;
        boolean ok = true;
        Boolean sessionPresent;
        Integer reasonCode;
        int[] reasonCodes;
        Properties properties;
        String error;
    }

    /** The peer's no, with its reason code. */
    static final class Refused extends Exception {
        private static final long serialVersionUID = 1;
        final int reasonCode;

        Refused(String text, int reasonCode) {
            super(text);
            this.reasonCode = reasonCode;
        }
    }

    interface Handler {
        Answer handle(Command command) throws Exception;
    }

    static byte[] bytes(String hex) {
        return HexFormat.of().parseHex(hex);
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    static void message(String name, String topic, byte[] payload, int qos, boolean retain, Properties properties) {
        JsonObject event = new JsonObject();
        event.addProperty("event", "message");
        event.addProperty("name", name);
        event.addProperty("topic", topic);
        event.addProperty("payload", hex(payload));
        event.addProperty("qos", qos);
        event.addProperty("retain", retain);
        event.add("properties", GSON.toJsonTree(properties));
        emit(event);
    }

    static void closed(String name, Integer reasonCode) {
        JsonObject event = new JsonObject();
        event.addProperty("event", "closed");
        event.addProperty("name", name);
        event.addProperty("reason_code", reasonCode);
        emit(event);
    }

    private static synchronized void emit(Object fields) {
        OUT.println(GSON.toJson(fields));
        OUT.flush();
    }

    static void serve(String client, Handler handler) throws Exception {
        JsonObject ready = new JsonObject();
        ready.addProperty("event", "ready");
        ready.addProperty("client", client);
        emit(ready);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Command command = GSON.fromJson(line, Command.class);
            Answer answer;
            try {
                answer = handler.handle(command);
            } catch (Exception error) {
                answer = new Answer();
                answer.ok = false;
                answer.error = error.toString();
                if (error instanceof Refused refused) answer.reasonCode = refused.reasonCode;
            }
            answer.id = command.id;
            emit(answer);
        }
        System.exit(0); // the libraries' threads would keep the process
    }
}
