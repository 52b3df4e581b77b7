// Driver for github.com/eclipse/paho.golang: MQTT 5.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	lines "interop"
)

var clients = map[string]*paho.Client{}

func publishProperties(p *lines.Properties) *paho.PublishProperties {
	found := &paho.PublishProperties{
		CorrelationData: p.CorrelationData,
		PayloadFormat:   p.PayloadFormat,
		MessageExpiry:   p.MessageExpiryS,
		TopicAlias:      p.TopicAlias,
	}
	if p.ContentType != nil {
		found.ContentType = *p.ContentType
	}
	if p.ResponseTopic != nil {
		found.ResponseTopic = *p.ResponseTopic
	}
	for _, pair := range p.UserProperties {
		found.User.Add(pair[0], pair[1])
	}
	return found
}

func received(name string, p *paho.Publish) lines.Message {
	message := lines.Message{Event: "message", Name: name, Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain}
	if p.Properties == nil {
		return message
	}
	found := &message.Properties
	found.CorrelationData = p.Properties.CorrelationData
	found.PayloadFormat = p.Properties.PayloadFormat
	found.MessageExpiryS = p.Properties.MessageExpiry
	if p.Properties.ContentType != "" {
		found.ContentType = &p.Properties.ContentType
	}
	if p.Properties.ResponseTopic != "" {
		found.ResponseTopic = &p.Properties.ResponseTopic
	}
	if p.Properties.SubscriptionIdentifier != nil {
		found.SubscriptionIDs = []int{*p.Properties.SubscriptionIdentifier}
	}
	for _, pair := range p.Properties.User {
		found.UserProperties = append(found.UserProperties, [2]string{pair.Key, pair.Value})
	}
	return message
}

func connectPacket(c *lines.Command) *paho.Connect {
	packet := &paho.Connect{
		ClientID:   c.ClientID,
		KeepAlive:  c.KeepAliveS,
		CleanStart: c.CleanStart,
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: c.Properties.SessionExpiryS,
			ReceiveMaximum:        c.Properties.ReceiveMaximum,
			TopicAliasMaximum:     c.Properties.TopicAliasMaximum,
			RequestProblemInfo:    true,
		},
	}
	for _, pair := range c.Properties.UserProperties {
		packet.Properties.User.Add(pair[0], pair[1])
	}
	if c.Will != nil {
		packet.WillMessage = &paho.WillMessage{
			Topic: c.Will.Topic, Payload: c.Will.Payload, QoS: c.Will.QoS, Retain: c.Will.Retain,
		}
		as := publishProperties(&c.Will.Properties)
		packet.WillProperties = &paho.WillProperties{
			WillDelayInterval: c.Will.Properties.WillDelayS,
			PayloadFormat:     as.PayloadFormat,
			MessageExpiry:     as.MessageExpiry,
			ContentType:       as.ContentType,
			ResponseTopic:     as.ResponseTopic,
			CorrelationData:   as.CorrelationData,
			User:              as.User,
		}
	}
	return packet
}

func dial(c *lines.Command) (net.Conn, error) {
	address := fmt.Sprintf("%s:%d", c.Host, c.Port)
	if c.TLS == nil {
		return net.Dial("tcp", address)
	}
	config, err := c.TLS.Config(c.Host)
	if err != nil {
		return nil, err
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	return packets.NewThreadSafeConn(conn), nil // tls.Conn tears writes of several goroutines apart
}

func connect(ctx context.Context, c *lines.Command) (lines.Answer, error) {
	conn, err := dial(c)
	if err != nil {
		return lines.Answer{}, err
	}
	client := paho.NewClient(paho.ClientConfig{
		Conn:          conn,
		PacketTimeout: lines.Deadline,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(r paho.PublishReceived) (bool, error) {
				lines.Emit(received(c.Name, r.Packet))
				return true, nil
			},
		},
		OnServerDisconnect: func(d *paho.Disconnect) { lines.EmitClosed(c.Name, lines.Number(int(d.ReasonCode))) },
		OnClientError:      func(error) { lines.EmitClosed(c.Name, nil) },
	})
	connack, err := client.Connect(ctx, connectPacket(c))
	if err != nil {
		if connack != nil {
			return lines.Answer{}, lines.Refused{Text: err.Error(), Code: int(connack.ReasonCode)}
		}
		return lines.Answer{}, err
	}
	clients[c.Name] = client
	found := &lines.Properties{}
	if connack.Properties != nil {
		found.SessionExpiryS = connack.Properties.SessionExpiryInterval
		found.ReceiveMaximum = connack.Properties.ReceiveMaximum
		found.TopicAliasMaximum = connack.Properties.TopicAliasMaximum
		if connack.Properties.AssignedClientID != "" {
			found.AssignedClientID = &connack.Properties.AssignedClientID
		}
	}
	return lines.Answer{SessionPresent: &connack.SessionPresent, ReasonCode: lines.Number(0), Properties: found}, nil
}

func subscribe(ctx context.Context, client *paho.Client, c *lines.Command) (lines.Answer, error) {
	var filters []lines.Filter
	if err := json.Unmarshal(c.Filters, &filters); err != nil {
		return lines.Answer{}, err
	}
	packet := &paho.Subscribe{Properties: &paho.SubscribeProperties{SubscriptionIdentifier: c.SubscriptionID}}
	for _, one := range filters {
		packet.Subscriptions = append(packet.Subscriptions, paho.SubscribeOptions{
			Topic: one.Filter, QoS: one.QoS, NoLocal: one.NoLocal,
			RetainAsPublished: one.RetainAsPublished, RetainHandling: one.RetainHandling,
		})
	}
	suback, err := client.Subscribe(ctx, packet)
	if suback == nil {
		return lines.Answer{}, err
	}
	var codes []int
	for _, code := range suback.Reasons {
		codes = append(codes, int(code))
	}
	return lines.Answer{ReasonCodes: codes}, nil
}

func publish(ctx context.Context, client *paho.Client, c *lines.Command) (lines.Answer, error) {
	answer, err := client.Publish(ctx, &paho.Publish{
		Topic: c.Topic, Payload: c.Payload, QoS: c.QoS, Retain: c.Retain, Properties: publishProperties(&c.Properties),
	})
	if err != nil {
		if answer != nil {
			return lines.Answer{}, lines.Refused{Text: err.Error(), Code: int(answer.ReasonCode)}
		}
		return lines.Answer{}, err
	}
	if answer == nil { // QoS 0
		return lines.Answer{}, nil
	}
	return lines.Answer{ReasonCode: lines.Number(int(answer.ReasonCode))}, nil
}

func handle(c *lines.Command) (lines.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lines.Deadline)
	defer cancel()
	if c.Do == "connect" {
		return connect(ctx, c)
	}
	client := clients[c.Name]
	switch c.Do {
	case "subscribe":
		return subscribe(ctx, client, c)
	case "unsubscribe":
		var filters []string
		if err := json.Unmarshal(c.Filters, &filters); err != nil {
			return lines.Answer{}, err
		}
		_, err := client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: filters})
		return lines.Answer{}, err
	case "publish":
		return publish(ctx, client, c)
	case "disconnect":
		delete(clients, c.Name)
		return lines.Answer{}, client.Disconnect(&paho.Disconnect{ReasonCode: c.ReasonCode})
	case "drop":
		delete(clients, c.Name)
		<-client.Done()
		return lines.Answer{}, nil
	}
	return lines.Answer{}, fmt.Errorf("no command %s", c.Do)
}

func main() { lines.Serve("paho.golang", handle) }
