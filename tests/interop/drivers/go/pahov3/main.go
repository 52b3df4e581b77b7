// Driver for github.com/eclipse/paho.mqtt.golang: MQTT 3.1 and 3.1.1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	lines "interop"
)

var clients = map[string]mqtt.Client{}

func wait(token mqtt.Token) error {
	if !token.WaitTimeout(lines.Deadline) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

func connect(c *lines.Command) (lines.Answer, error) {
	options := mqtt.NewClientOptions()
	if c.TLS == nil {
		options.AddBroker(fmt.Sprintf("tcp://%s:%d", c.Host, c.Port))
	} else {
		config, err := c.TLS.Config(c.Host)
		if err != nil {
			return lines.Answer{}, err
		}
		options.AddBroker(fmt.Sprintf("ssl://%s:%d", c.Host, c.Port))
		options.SetTLSConfig(config)
	}
	options.SetProtocolVersion(c.Version)
	options.SetClientID(c.ClientID)
	options.SetCleanSession(c.CleanStart)
	options.SetKeepAlive(time.Duration(c.KeepAliveS) * time.Second)
	options.SetAutoReconnect(false)
	options.SetConnectRetry(false)
	if c.Will != nil {
		options.SetBinaryWill(c.Will.Topic, c.Will.Payload, c.Will.QoS, c.Will.Retain)
	}
	options.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		lines.Emit(lines.Message{Event: "message", Name: c.Name, Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(),
			Retain: m.Retained()})
	})
	options.SetConnectionLostHandler(func(mqtt.Client, error) { lines.EmitClosed(c.Name, nil) })
	client := mqtt.NewClient(options)
	token := client.Connect()
	err := wait(token)
	connack := token.(*mqtt.ConnectToken)
	if err != nil {
		return lines.Answer{}, lines.Refused{Text: err.Error(), Code: int(connack.ReturnCode())}
	}
	clients[c.Name] = client
	present := connack.SessionPresent()
	return lines.Answer{SessionPresent: &present, ReasonCode: lines.Number(0)}, nil
}

func subscribe(client mqtt.Client, c *lines.Command) (lines.Answer, error) {
	var filters []lines.Filter
	if err := json.Unmarshal(c.Filters, &filters); err != nil {
		return lines.Answer{}, err
	}
	wanted := map[string]byte{}
	for _, one := range filters {
		wanted[one.Filter] = one.QoS
	}
	token := client.SubscribeMultiple(wanted, nil)
	if err := wait(token); err != nil {
		return lines.Answer{}, err
	}
	granted := token.(*mqtt.SubscribeToken).Result()
	var codes []int
	for _, one := range filters {
		codes = append(codes, int(granted[one.Filter]))
	}
	return lines.Answer{ReasonCodes: codes}, nil
}

func handle(c *lines.Command) (lines.Answer, error) {
	if c.Do == "connect" {
		return connect(c)
	}
	client := clients[c.Name]
	switch c.Do {
	case "subscribe":
		return subscribe(client, c)
	case "unsubscribe":
		var filters []string
		if err := json.Unmarshal(c.Filters, &filters); err != nil {
			return lines.Answer{}, err
		}
		return lines.Answer{}, wait(client.Unsubscribe(filters...))
	case "publish":
		return lines.Answer{}, wait(client.Publish(c.Topic, c.QoS, c.Retain, []byte(c.Payload)))
	case "disconnect":
		delete(clients, c.Name)
		client.Disconnect(1000) // ms for DISCONNECT to leave; 0 would not send it
		return lines.Answer{}, nil
	case "drop":
		delete(clients, c.Name)
		client.Disconnect(0)
		return lines.Answer{}, nil
	}
	return lines.Answer{}, fmt.Errorf("no command %s", c.Do)
}

func main() { lines.Serve("paho.mqtt.golang", handle) }
