// Driver for MQTT.js; the line protocol is in ../README.md.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const mqtt = require("mqtt");
const { version } = require("mqtt/package.json");

const NAMES = {
  session_expiry_s: "sessionExpiryInterval",
  receive_maximum: "receiveMaximum",
  topic_alias_maximum: "topicAliasMaximum",
  user_properties: "userProperties",
  content_type: "contentType",
  correlation_data: "correlationData",
  response_topic: "responseTopic",
  message_expiry_s: "messageExpiryInterval",
  payload_format: "payloadFormatIndicator",
  topic_alias: "topicAlias",
  will_delay_s: "willDelayInterval",
  subscription_ids: "subscriptionIdentifier",
  assigned_client_id: "assignedClientIdentifier",
};

const emit = (fields) => process.stdout.write(JSON.stringify(fields) + "\n");

function toMqttjs(fields) {
  const found = {};
  for (const [name, value] of Object.entries(fields)) {
    if (name === "user_properties") {
      found.userProperties = {};
      for (const [key, text] of value) {
        const before = found.userProperties[key];
        found.userProperties[key] = before === undefined ? text : [].concat(before, text);
      }
    } else if (name === "correlation_data") found.correlationData = Buffer.from(value, "hex");
    else if (name === "payload_format") found.payloadFormatIndicator = Boolean(value);
    else found[NAMES[name]] = value;
  }
  return found;
}

function fromMqttjs(properties) {
  const found = {};
  for (const [name, theirs] of Object.entries(NAMES)) {
    const value = properties && properties[theirs];
    if (value === undefined) continue;
    if (name === "user_properties")
      found[name] = Object.entries(value).flatMap(([key, texts]) => [].concat(texts).map((text) => [key, text]));
    else if (name === "correlation_data") found[name] = value.toString("hex");
    else if (name === "payload_format") found[name] = Number(value);
    else if (name === "subscription_ids") found[name] = [].concat(value);
    else found[name] = value;
  }
  return found;
}

const connections = new Map();

function connect(command) {
  const options = {
    host: command.host,
    port: command.port,
    protocol: (process.env.MQTTCORE_INTEROP_WEBSOCKET ? "ws" : "mqtt") + (command.tls === null ? "" : "s"),
    path: process.env.MQTTCORE_INTEROP_WEBSOCKET,
    protocolId: command.version === 3 ? "MQIsdp" : "MQTT",
    protocolVersion: command.version,
    clientId: command.client_id,
    clean: command.clean_start,
    keepalive: command.keep_alive_s,
    reconnectPeriod: 0,
    connectTimeout: 60000,
    resubscribe: false,
  };
  if (command.tls !== null) {
    options.ca = fs.readFileSync(command.tls.ca);
    if (command.tls.certificate) {
      options.cert = fs.readFileSync(command.tls.certificate);
      options.key = fs.readFileSync(command.tls.key);
    }
  }
  if (command.version === 5) options.properties = toMqttjs(command.properties);
  const will = command.will;
  if (will !== null) {
    options.will = {
      topic: will.topic,
      payload: Buffer.from(will.payload, "hex"),
      qos: will.qos,
      retain: will.retain,
    };
    if (command.version === 5) options.will.properties = toMqttjs(will.properties);
  }
  return new Promise((resolve, reject) => {
    const client = mqtt.connect(options);
    client.on("message", (topic, payload, packet) =>
      emit({
        event: "message",
        name: command.name,
        topic,
        payload: payload.toString("hex"),
        qos: packet.qos,
        retain: packet.retain,
        properties: fromMqttjs(packet.properties),
      }),
    );
    let reason = null;
    client.on("disconnect", (packet) => (reason = packet.reasonCode));
    client.on("error", reject);
    client.once("connect", (connack) => {
      connections.set(command.name, client);
      client.on("close", () => emit({ event: "closed", name: command.name, reason_code: reason }));
      resolve({
        session_present: connack.sessionPresent,
        reason_code: 0,
        properties: fromMqttjs(connack.properties),
      });
    });
    client.once("close", () => reject(new Error("closed before CONNACK")));
  });
}

async function subscribe(command, client) {
  const filters = {};
  for (const one of command.filters)
    filters[one.filter] = {
      qos: one.qos,
      nl: one.no_local,
      rap: one.retain_as_published,
      rh: one.retain_handling,
    };
  const options = command.subscription_id
    ? { properties: { subscriptionIdentifier: command.subscription_id } }
    : {};
  return new Promise((resolve, reject) => {
    client.subscribe(filters, options, (error, granted, packet) => {
      if (packet) resolve({ reason_codes: packet.granted });
      else if (error) reject(error);
      else resolve({ reason_codes: granted.map((one) => one.qos) });
    });
  });
}

async function publish(command, client) {
  const options = { qos: command.qos, retain: command.retain };
  if (client.options.protocolVersion === 5) options.properties = toMqttjs(command.properties);
  const packet = await client.publishAsync(command.topic, Buffer.from(command.payload, "hex"), options);
  return { reason_code: packet && packet.reasonCode !== undefined ? packet.reasonCode : null };
}

async function handle(command) {
  if (command.do === "connect") return connect(command);
  const client = connections.get(command.name);
  switch (command.do) {
    case "subscribe":
      return subscribe(command, client);
    case "unsubscribe":
      await client.unsubscribeAsync(command.filters);
      return {};
    case "publish":
      return publish(command, client);
    case "disconnect":
      connections.delete(command.name);
      await client.endAsync(false, { reasonCode: command.reason_code });
      return {};
    case "drop":
      connections.delete(command.name);
      await client.endAsync(true);
      return {};
    default:
      throw new Error(`no command ${command.do}`);
  }
}

emit({ event: "ready", client: `MQTT.js ${version}` });
let turn = Promise.resolve();
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  turn = turn.then(async () => {
    try {
      emit({ id: command.id, ok: true, ...(await handle(command)) });
    } catch (error) {
      emit({ id: command.id, ok: false, error: String(error), reason_code: error.code ?? null });
    }
  });
}).on("close", () => process.exit(0));
