"use strict";

// What comes from the network is text: it goes into textContent and nowhere else.

const FILTER = "chat/#";
const LINES_MAXIMUM = 500;

const part = (id) => document.getElementById(id);
const send = document.querySelector("#say button");
const utf8 = new TextDecoder();
let client = null;

part("url").value = new URLSearchParams(location.search).get("url") ?? "";

function tell(state) {
  part("state").textContent = state;
}

function show(topic, text) {
  const line = document.createElement("li");
  const place = document.createElement("b");
  place.textContent = `${topic}  `;
  line.append(place, text); // a string becomes a text node
  part("lines").append(line);
  while (part("lines").childElementCount > LINES_MAXIMUM) part("lines").firstElementChild.remove();
}

function connect() {
  if (client !== null) client.end(true);
  send.disabled = true;
  const url = part("url").value;
  let mine;
  try {
    mine = mqtt.connect(url, {
      protocolVersion: 5,
      username: part("user").value || undefined,
      password: part("password").value || undefined,
      reconnectPeriod: 2000,
    });
  } catch (error) {
    tell(error.message);
    return;
  }
  client = mine;
  let refusal = "";
  tell(`connecting to ${url}`);
  mine.on("connect", async () => {
    try {
      await mine.subscribeAsync(FILTER, { qos: 1 });
    } catch (error) {
      tell(`not allowed to read ${FILTER}: ${error.message}`);
      return;
    }
    refusal = "";
    send.disabled = false;
    tell(`connected to ${url}`);
  });
  mine.on("message", (topic, payload) => show(topic, utf8.decode(payload)));
  mine.on("error", (error) => {
    refusal = error.message;
    tell(refusal);
  });
  mine.on("close", () => {
    if (mine !== client) return;
    send.disabled = true;
    // A browser does not tell scripts why: a certificate it does not trust looks like a server that is not there.
    tell(refusal || `no connection to ${url}; the browser's console may say why`);
  });
}

part("door").addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});

part("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = part("text").value;
  if (client === null || text === "") return;
  try {
    await client.publishAsync(part("topic").value, text, { qos: 1 });
    part("text").value = "";
  } catch (error) {
    tell(`not sent: ${error.message}`);
  }
});
