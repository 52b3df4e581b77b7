// Decodes with mqtt-packet: lines "VERSION HEX" in, one JSON line out for each.
// {"packet": {...}} with buffers as {"hex": "..."}, {"error": "..."}, or {} when the packet is not complete.
"use strict";

const readline = require("node:readline");
const mqtt = require("mqtt-packet");

const FIELDS = [
  "cmd", "retain", "qos", "dup", "topic", "payload", "messageId", "properties", "subscriptions", "unsubscriptions",
  "granted", "reasonCode", "returnCode", "sessionPresent", "protocolId", "protocolVersion", "clean", "keepalive",
  "clientId", "will", "username", "password", "bridgeMode",
];

function plain(value) {
  if (value instanceof Uint8Array || (value && typeof value.slice === "function" && typeof value.copy === "function")) {
    return { hex: Buffer.from(value.slice()).toString("hex") };
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
  }
  return value;
}

function decode(version, data) {
  const parser = mqtt.parser({ protocolVersion: version });
  let answer = {};
  parser.on("packet", (packet) => {
    if (answer.packet || answer.error) return;
    const found = {};
    for (const name of FIELDS) if (packet[name] !== undefined && packet[name] !== null) found[name] = plain(packet[name]);
    answer = { packet: found };
  });
  parser.on("error", (error) => {
    if (!answer.packet) answer = { error: error.message };
  });
  try {
    parser.parse(data);
  } catch (error) {
    answer = { error: `thrown: ${error.message}` };
  }
  return answer;
}

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const [version, hex] = line.split(" ");
  process.stdout.write(JSON.stringify(decode(Number(version), Buffer.from(hex, "hex"))) + "\n");
});
