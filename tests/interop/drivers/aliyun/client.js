// A customer's client in Node: `node client.js signature|token|websocket` says how it logs in, or that it does so by
// signature in WebSocket; echoes of its topic and to itself.

const crypto = require('crypto')
const mqtt = require('mqtt')

const env = process.env
const clientId = `${env.MQTT_GROUP_ID}@@@node1`
const peerTopic = `${env.MQTT_TOPIC.split('/')[0]}/p2p/${clientId}`

const sign = (text) => crypto.createHmac('sha1', env.MQTT_SECRET_KEY).update(text).digest('base64')

async function applyToken () {
  const signed = {
    actions: 'R,W',
    expireTime: String(Date.now() + 3600 * 1000),
    instanceId: env.MQTT_INSTANCE_ID,
    resources: env.MQTT_TOPIC,
    serviceName: 'mq'
  }
  const form = new FormData() // multipart/form-data
  for (const name of Object.keys(signed)) form.append(name, signed[name])
  form.append('proxyType', 'MQTT')
  form.append('accessKey', env.MQTT_ACCESS_KEY)
  form.append('signature', sign(Object.keys(signed).sort().map((name) => `${name}=${signed[name]}`).join('&')))
  const answer = await fetch(`${env.MQTT_TOKEN_SERVER}/token/apply`, { method: 'POST', body: form })
  const said = await answer.json()
  console.log('token', said.code, said.message)
  return said.tokenData
}

async function main () {
  const byToken = process.argv[2] === 'token'
  const url = process.argv[2] === 'websocket'
    ? `${env.MQTT_TOKEN_SERVER.replace('http', 'ws')}/mqtt` // one port for WebSocket and HTTP
    : `mqtt://${env.MQTT_ENDPOINT}:${env.MQTT_PORT}`
  const client = mqtt.connect(url, {
    clientId,
    username: `${byToken ? 'Token' : 'Signature'}|${env.MQTT_ACCESS_KEY}|${env.MQTT_INSTANCE_ID}`,
    password: byToken ? 'RW|' + await applyToken() : sign(clientId),
    keepalive: 90,
    clean: true,
    reconnectPeriod: 0
  })
  let echoes = 0
  client.on('connect', () => {
    console.log('connected', 0)
    client.publish('$SYS/enableOrderMsg', '{"order":"true"}', { qos: 1 }, (error) => {
      console.log(error ? `not ordered: ${error.message}` : 'ordered')
      client.subscribe(env.MQTT_TOPIC, { qos: 1 })
      for (let number = 1; number <= 10; number++) {
        client.publish(env.MQTT_TOPIC, String(number))
        client.publish(peerTopic, `p2p ${number}`)
      }
    })
  })
  client.on('message', (topic, payload) => {
    console.log(topic, payload.toString())
    if (++echoes === 20) client.end()
  })
  client.on('error', (error) => {
    console.log('error', error.message)
    process.exitCode = 1
    client.end(true)
  })
}

main()
