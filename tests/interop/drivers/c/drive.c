/* Driver for Eclipse Paho C, the blocking MQTTClient; the line protocol is in ../README.md. */
#include <MQTTClient.h>
#include <cJSON.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 4096 /* in all: none is used again */
#define DEADLINE_MS 60000

typedef struct {
    char name[64];
    int version;
    MQTTClient client;
} Connection;

/* name in the line protocol, property, how its value is written */
typedef struct {
    const char *name;
    enum MQTTPropertyCodes code;
} PropertyName;

static const PropertyName NAMES[] = {
    {"session_expiry_s", MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL},
    {"receive_maximum", MQTTPROPERTY_CODE_RECEIVE_MAXIMUM},
    {"topic_alias_maximum", MQTTPROPERTY_CODE_TOPIC_ALIAS_MAXIMUM},
    {"user_properties", MQTTPROPERTY_CODE_USER_PROPERTY},
    {"content_type", MQTTPROPERTY_CODE_CONTENT_TYPE},
    {"correlation_data", MQTTPROPERTY_CODE_CORRELATION_DATA},
    {"response_topic", MQTTPROPERTY_CODE_RESPONSE_TOPIC},
    {"message_expiry_s", MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL},
    {"payload_format", MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR},
    {"topic_alias", MQTTPROPERTY_CODE_TOPIC_ALIAS},
    {"will_delay_s", MQTTPROPERTY_CODE_WILL_DELAY_INTERVAL},
    {"subscription_ids", MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER},
    {"assigned_client_id", MQTTPROPERTY_CODE_ASSIGNED_CLIENT_IDENTIFER},
};
#define NAME_COUNT (sizeof NAMES / sizeof *NAMES)

static Connection connections[CONNECTIONS];
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

/* Write one line and free it; callable from any thread. */
static void emit(cJSON *fields)
{
    char *text = cJSON_PrintUnformatted(fields);
    pthread_mutex_lock(&writing);
    puts(text);
    fflush(stdout);
    pthread_mutex_unlock(&writing);
    free(text);
    cJSON_Delete(fields);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return value ? value : "";
}

static int number_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valueint : 0;
}

static int truth_of(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, key));
}

/* Decode hexadecimal text into a new buffer of *length bytes. */
static unsigned char *from_hex(const char *text, int *length)
{
    unsigned char *bytes = malloc(strlen(text) / 2 + 1);
    unsigned int one;
    *length = 0;
    while (sscanf(text, "%2x", &one) == 1) {
        bytes[(*length)++] = (unsigned char)one;
        text += 2;
    }
    return bytes;
}

static void add_hex(cJSON *object, const char *key, const void *bytes, int length)
{
    char *text = malloc((size_t)length * 2 + 1);
    for (int i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
    text[2 * length] = 0;
    cJSON_AddStringToObject(object, key, text);
    free(text);
}

static MQTTLenString len_string(const char *text)
{
    MQTTLenString found = {(int)strlen(text), (char *)text};
    return found;
}

/* Add the command's properties to *found; MQTTProperties_add copies what they point to. */
static void read_properties(const cJSON *fields, MQTTProperties *found)
{
    for (size_t i = 0; i < NAME_COUNT; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(fields, NAMES[i].name);
        MQTTProperty one = {.identifier = NAMES[i].code};
        if (!value)
            continue;
        switch (MQTTProperty_getType(one.identifier)) {
        case MQTTPROPERTY_TYPE_BYTE:
            one.value.byte = (unsigned char)value->valueint;
            break;
        case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER:
            one.value.integer2 = (unsigned short)value->valueint;
            break;
        case MQTTPROPERTY_TYPE_FOUR_BYTE_INTEGER:
        case MQTTPROPERTY_TYPE_VARIABLE_BYTE_INTEGER:
            one.value.integer4 = (unsigned int)value->valuedouble;
            break;
        case MQTTPROPERTY_TYPE_BINARY_DATA: {
            int length;
            unsigned char *bytes = from_hex(value->valuestring, &length);
            one.value.data.data = (char *)bytes;
            one.value.data.len = length;
            MQTTProperties_add(found, &one);
            free(bytes);
            continue;
        }
        case MQTTPROPERTY_TYPE_UTF_8_STRING_PAIR: {
            const cJSON *pair;
            cJSON_ArrayForEach(pair, value) {
                one.value.data = len_string(cJSON_GetArrayItem(pair, 0)->valuestring);
                one.value.value = len_string(cJSON_GetArrayItem(pair, 1)->valuestring);
                MQTTProperties_add(found, &one);
            }
            continue;
        }
        default:
            one.value.data = len_string(value->valuestring);
        }
        MQTTProperties_add(found, &one);
    }
}

static void add_string(cJSON *array_or_object, const char *key, MQTTLenString text)
{
    char *copy = strndup(text.data, (size_t)text.len);
    if (key)
        cJSON_AddStringToObject(array_or_object, key, copy);
    else
        cJSON_AddItemToArray(array_or_object, cJSON_CreateString(copy));
    free(copy);
}

static cJSON *array_in(cJSON *object, const char *key)
{
    cJSON *array = cJSON_GetObjectItemCaseSensitive(object, key);
    return array ? array : cJSON_AddArrayToObject(object, key);
}

static cJSON *write_properties(const MQTTProperties *properties)
{
    cJSON *found = cJSON_CreateObject();
    for (int i = 0; properties && i < properties->count; i++) {
        const MQTTProperty *one = &properties->array[i];
        const char *name = NULL;
        for (size_t j = 0; j < NAME_COUNT; j++)
            if (NAMES[j].code == one->identifier)
                name = NAMES[j].name;
        if (!name)
            continue;
        switch (MQTTProperty_getType(one->identifier)) {
        case MQTTPROPERTY_TYPE_BYTE:
            cJSON_AddNumberToObject(found, name, one->value.byte);
            break;
        case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER:
            cJSON_AddNumberToObject(found, name, one->value.integer2);
            break;
        case MQTTPROPERTY_TYPE_FOUR_BYTE_INTEGER:
            cJSON_AddNumberToObject(found, name, one->value.integer4);
            break;
        case MQTTPROPERTY_TYPE_VARIABLE_BYTE_INTEGER: /* Subscription Identifiers come several */
            cJSON_AddItemToArray(array_in(found, name), cJSON_CreateNumber(one->value.integer4));
            break;
        case MQTTPROPERTY_TYPE_BINARY_DATA:
            add_hex(found, name, one->value.data.data, one->value.data.len);
            break;
        case MQTTPROPERTY_TYPE_UTF_8_STRING_PAIR: {
            cJSON *pair = cJSON_CreateArray();
            add_string(pair, NULL, one->value.data);
            add_string(pair, NULL, one->value.value);
            cJSON_AddItemToArray(array_in(found, name), pair);
            break;
        }
        default:
            add_string(found, name, one->value.data);
        }
    }
    return found;
}

static int on_message(void *context, char *topic, int topic_length, MQTTClient_message *message)
{
    const Connection *connection = context;
    cJSON *event = cJSON_CreateObject();
    (void)topic_length;
    cJSON_AddStringToObject(event, "event", "message");
    cJSON_AddStringToObject(event, "name", connection->name);
    cJSON_AddStringToObject(event, "topic", topic);
    add_hex(event, "payload", message->payload, message->payloadlen);
    cJSON_AddNumberToObject(event, "qos", message->qos);
    cJSON_AddBoolToObject(event, "retain", message->retained);
    cJSON_AddItemToObject(event, "properties", write_properties(&message->properties));
    emit(event);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return 1;
}

static void emit_closed(const Connection *connection, int reason_code)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", "closed");
    cJSON_AddStringToObject(event, "name", connection->name);
    if (reason_code >= 0)
        cJSON_AddNumberToObject(event, "reason_code", reason_code);
    else
        cJSON_AddNullToObject(event, "reason_code");
    emit(event);
}

static void on_lost(void *context, char *cause)
{
    (void)cause;
    emit_closed(context, -1);
}

static void on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason_code)
{
    (void)properties;
    emit_closed(context, (int)reason_code);
}

static Connection *named(const char *name)
{
    for (int i = 0; i < CONNECTIONS; i++)
        if (strcmp(connections[i].name, name) == 0)
            return &connections[i];
    return NULL;
}

/* Its place and its client stay until the process ends: the library's thread uses a client after its callback told us of
   a message, and would use freed memory. */
static void forget(Connection *connection)
{
    snprintf(connection->name, sizeof connection->name, "(gone)");
}

/* Every command fills `answer` and returns NULL, or returns why it failed. */
static const char *do_connect(const cJSON *command, cJSON *answer)
{
    Connection *connection = named("");
    char address[64];
    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions options5 = MQTTClient_connectOptions_initializer5;
    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperties will_properties = MQTTProperties_initializer;
    MQTTClient_SSLOptions secured = MQTTClient_SSLOptions_initializer;
    const cJSON *tls = cJSON_GetObjectItemCaseSensitive(command, "tls");
    const cJSON *wanted_will = cJSON_GetObjectItemCaseSensitive(command, "will");
    unsigned char *will_payload = NULL;
    int status;

    if (!connection)
        return "too many connections";
    if (cJSON_IsObject(tls)) {
        secured.trustStore = text_of(tls, "ca");
        if (cJSON_HasObjectItem(tls, "certificate")) {
            secured.keyStore = text_of(tls, "certificate");
            secured.privateKey = text_of(tls, "key");
        }
        secured.verify = 1;
        options.ssl = options5.ssl = &secured;
    }
    snprintf(address, sizeof address, "%s://%s:%d", options.ssl ? "ssl" : "tcp", text_of(command, "host"), number_of(command, "port"));
    snprintf(connection->name, sizeof connection->name, "%s", text_of(command, "name"));
    connection->version = number_of(command, "version");
    create.MQTTVersion = connection->version;
    if (MQTTClient_createWithOptions(&connection->client, address, text_of(command, "client_id"),
                                     MQTTCLIENT_PERSISTENCE_NONE, NULL, &create) != MQTTCLIENT_SUCCESS) {
        memset(connection, 0, sizeof *connection);
        return "createWithOptions failed";
    }
    MQTTClient_setCallbacks(connection->client, connection, on_lost, on_message, NULL);
    if (connection->version == 5) {
        options = options5;
        options.cleanstart = truth_of(command, "clean_start");
        MQTTClient_setDisconnected(connection->client, connection, on_disconnected);
    } else
        options.cleansession = truth_of(command, "clean_start");
    options.MQTTVersion = connection->version;
    options.keepAliveInterval = number_of(command, "keep_alive_s");
    options.connectTimeout = DEADLINE_MS / 1000;
    if (cJSON_IsObject(wanted_will)) {
        int length;
        will_payload = from_hex(text_of(wanted_will, "payload"), &length);
        will.topicName = text_of(wanted_will, "topic");
        will.payload.data = will_payload;
        will.payload.len = length;
        will.qos = number_of(wanted_will, "qos");
        will.retained = truth_of(wanted_will, "retain");
        options.will = &will;
        read_properties(cJSON_GetObjectItemCaseSensitive(wanted_will, "properties"), &will_properties);
    }
    if (connection->version == 5) {
        read_properties(cJSON_GetObjectItemCaseSensitive(command, "properties"), &properties);
        MQTTResponse response = MQTTClient_connect5(connection->client, &options, &properties, &will_properties);
        status = response.reasonCode;
        cJSON_AddItemToObject(answer, "properties", write_properties(response.properties));
        MQTTResponse_free(response);
    } else
        status = MQTTClient_connect(connection->client, &options);
    MQTTProperties_free(&properties);
    MQTTProperties_free(&will_properties);
    free(will_payload);
    if (status < 0)
        cJSON_AddNullToObject(answer, "reason_code");
    else
        cJSON_AddNumberToObject(answer, "reason_code", status);
    if (status != MQTTCLIENT_SUCCESS) {
        forget(connection);
        return "connect failed";
    }
    if (connection->version < 5) /* not kept in MQTT 5 */
        cJSON_AddBoolToObject(answer, "session_present", options.returned.sessionPresent);
    return NULL;
}

static const char *do_subscribe(const cJSON *command, Connection *connection, cJSON *answer)
{
    const cJSON *filters = cJSON_GetObjectItemCaseSensitive(command, "filters");
    int count = cJSON_GetArraySize(filters);
    char *topics[count];
    int qos[count];
    MQTTSubscribe_options each[count];
    cJSON *codes = cJSON_AddArrayToObject(answer, "reason_codes");

    for (int i = 0; i < count; i++) {
        const cJSON *one = cJSON_GetArrayItem(filters, i);
        MQTTSubscribe_options none = MQTTSubscribe_options_initializer;
        topics[i] = (char *)text_of(one, "filter");
        qos[i] = number_of(one, "qos");
        each[i] = none;
        each[i].noLocal = truth_of(one, "no_local");
        each[i].retainAsPublished = truth_of(one, "retain_as_published");
        each[i].retainHandling = (unsigned char)number_of(one, "retain_handling");
    }
    if (connection->version < 5) {
        int status = MQTTClient_subscribeMany(connection->client, count, topics, qos);
        for (int i = 0; i < count; i++)
            cJSON_AddItemToArray(codes, cJSON_CreateNumber(qos[i]));
        return status == MQTTCLIENT_SUCCESS || count == 1 ? NULL : "subscribeMany failed";
    }
    MQTTProperties properties = MQTTProperties_initializer;
    if (number_of(command, "subscription_id")) {
        MQTTProperty id = {.identifier = MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER};
        id.value.integer4 = (unsigned int)number_of(command, "subscription_id");
        MQTTProperties_add(&properties, &id);
    }
    MQTTResponse response =
        MQTTClient_subscribeMany5(connection->client, count, topics, qos, each, &properties);
    MQTTProperties_free(&properties);
    /* the library gives an array of codes only where there are several */
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(
            codes, cJSON_CreateNumber(response.reasonCodes ? (int)response.reasonCodes[i] : (int)response.reasonCode));
    int failed = (int)response.reasonCode < 0;
    MQTTResponse_free(response);
    return failed ? "subscribeMany5 failed" : NULL;
}

static const char *do_unsubscribe(const cJSON *command, Connection *connection)
{
    const cJSON *filters = cJSON_GetObjectItemCaseSensitive(command, "filters");
    int count = cJSON_GetArraySize(filters);
    char *topics[count];
    for (int i = 0; i < count; i++)
        topics[i] = cJSON_GetArrayItem(filters, i)->valuestring;
    if (connection->version < 5)
        return MQTTClient_unsubscribeMany(connection->client, count, topics) ? "unsubscribeMany failed" : NULL;
    MQTTResponse response = MQTTClient_unsubscribeMany5(connection->client, count, topics, NULL);
    int failed = (int)response.reasonCode < 0 || (int)response.reasonCode >= 0x80;
    MQTTResponse_free(response);
    return failed ? "unsubscribeMany5 failed" : NULL;
}

static const char *do_publish(const cJSON *command, Connection *connection, cJSON *answer)
{
    MQTTClient_message message = MQTTClient_message_initializer;
    MQTTClient_deliveryToken token;
    int status;
    int length;
    unsigned char *payload = from_hex(text_of(command, "payload"), &length);

    message.payload = payload;
    message.payloadlen = length;
    message.qos = number_of(command, "qos");
    message.retained = truth_of(command, "retain");
    if (connection->version == 5) {
        read_properties(cJSON_GetObjectItemCaseSensitive(command, "properties"), &message.properties);
        MQTTResponse response =
            MQTTClient_publishMessage5(connection->client, text_of(command, "topic"), &message, &token);
        status = response.reasonCode;
        MQTTResponse_free(response);
    } else
        status = MQTTClient_publishMessage(connection->client, text_of(command, "topic"), &message, &token);
    MQTTProperties_free(&message.properties);
    free(payload);
    if (status == MQTTCLIENT_SUCCESS && message.qos > 0)
        status = MQTTClient_waitForCompletion(connection->client, token, DEADLINE_MS);
    (void)answer;
    return status == MQTTCLIENT_SUCCESS ? NULL : "publish failed";
}

static const char *do_disconnect(const cJSON *command, Connection *connection)
{
    int status = connection->version == 5
                     ? MQTTClient_disconnect5(connection->client, 0,
                                              (enum MQTTReasonCodes)number_of(command, "reason_code"), NULL)
                     : MQTTClient_disconnect(connection->client, 0);
    forget(connection);
    return status == MQTTCLIENT_SUCCESS ? NULL : "disconnect failed";
}

static const char *handle(const cJSON *command, cJSON *answer)
{
    const char *verb = text_of(command, "do");
    if (strcmp(verb, "connect") == 0)
        return do_connect(command, answer);
    Connection *connection = named(text_of(command, "name"));
    if (!connection)
        return "no such connection";
    if (strcmp(verb, "subscribe") == 0)
        return do_subscribe(command, connection, answer);
    if (strcmp(verb, "unsubscribe") == 0)
        return do_unsubscribe(command, connection);
    if (strcmp(verb, "publish") == 0)
        return do_publish(command, connection, answer);
    if (strcmp(verb, "disconnect") == 0)
        return do_disconnect(command, connection);
    if (strcmp(verb, "drop") == 0) {
        forget(connection);
        return NULL;
    }
    return "no such command";
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    cJSON *ready = cJSON_CreateObject();
    MQTTClient_nameValue *version = MQTTClient_getVersionInfo();
    char title[64];

    snprintf(title, sizeof title, "Paho C %s", version[1].value);
    cJSON_AddStringToObject(ready, "event", "ready");
    cJSON_AddStringToObject(ready, "client", title);
    emit(ready);
    while (getline(&line, &capacity, stdin) > 0) {
        cJSON *command = cJSON_Parse(line);
        cJSON *answer = cJSON_CreateObject();
        const char *error = handle(command, answer);
        cJSON_AddNumberToObject(answer, "id", number_of(command, "id"));
        cJSON_AddBoolToObject(answer, "ok", error == NULL);
        if (error)
            cJSON_AddStringToObject(answer, "error", error);
        emit(answer);
        cJSON_Delete(command);
    }
    free(line);
    return 0;
}
