// Package lines is the line protocol of ../README.md for drivers in Go.
package lines

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Deadline bounds every wait for an acknowledgement.
const Deadline = 60 * time.Second

// Hex is a byte string written in hexadecimal.
type Hex []byte

// UnmarshalJSON reads a string of hexadecimal digits.
func (h *Hex) UnmarshalJSON(text []byte) error {
	var digits string
	if err := json.Unmarshal(text, &digits); err != nil {
		return err
	}
	bytes, err := hex.DecodeString(digits)
	*h = bytes
	return err
}

// MarshalJSON writes a string of hexadecimal digits.
func (h Hex) MarshalJSON() ([]byte, error) {
	return json.Marshal(hex.EncodeToString(h))
}

// Properties has a nil where the packet has none.
type Properties struct {
	SessionExpiryS    *uint32     `json:"session_expiry_s,omitempty"`
	ReceiveMaximum    *uint16     `json:"receive_maximum,omitempty"`
	TopicAliasMaximum *uint16     `json:"topic_alias_maximum,omitempty"`
	UserProperties    [][2]string `json:"user_properties,omitempty"`
	ContentType       *string     `json:"content_type,omitempty"`
	CorrelationData   Hex         `json:"correlation_data,omitempty"`
	ResponseTopic     *string     `json:"response_topic,omitempty"`
	MessageExpiryS    *uint32     `json:"message_expiry_s,omitempty"`
	PayloadFormat     *byte       `json:"payload_format,omitempty"`
	TopicAlias        *uint16     `json:"topic_alias,omitempty"`
	WillDelayS        *uint32     `json:"will_delay_s,omitempty"`
	SubscriptionIDs   []int       `json:"subscription_ids,omitempty"`
	AssignedClientID  *string     `json:"assigned_client_id,omitempty"`
}

// Will is the will of a connect command.
type Will struct {
	Topic      string
	Payload    Hex
	QoS        byte
	Retain     bool
	Properties Properties
}

// TLS names PEM files; Certificate and Key are empty where the client has none.
type TLS struct {
	CA          string
	Certificate string
	Key         string
}

// Config returns what crypto/tls needs, for a server of that name.
func (t *TLS) Config(host string) (*tls.Config, error) {
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + t.CA)
	}
	config := &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
	if t.Certificate != "" {
		own, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// Filter is one filter of a subscribe command.
type Filter struct {
	Filter            string
	QoS               byte
	NoLocal           bool `json:"no_local"`
	RetainAsPublished bool `json:"retain_as_published"`
	RetainHandling    byte `json:"retain_handling"`
}

// Command holds the fields of all commands; filters differ in shape and are read by their command.
type Command struct {
	ID             int
	Do             string
	Name           string
	Host           string
	Port           int
	Version        uint
	ClientID       string `json:"client_id"`
	CleanStart     bool   `json:"clean_start"`
	KeepAliveS     uint16 `json:"keep_alive_s"`
	TLS            *TLS
	Will           *Will
	Properties     Properties
	Filters        json.RawMessage
	SubscriptionID *int `json:"subscription_id"`
	Topic          string
	Payload        Hex
	QoS            byte
	Retain         bool
	ReasonCode     byte `json:"reason_code"`
}

// Answer is what a command found; a nil is not told.
type Answer struct {
	SessionPresent *bool       `json:"session_present,omitempty"`
	ReasonCode     *int        `json:"reason_code,omitempty"`
	ReasonCodes    []int       `json:"reason_codes,omitempty"`
	Properties     *Properties `json:"properties,omitempty"`
}

// Message is one received PUBLISH.
type Message struct {
	Event      string     `json:"event"`
	Name       string     `json:"name"`
	Topic      string     `json:"topic"`
	Payload    Hex        `json:"payload"`
	QoS        byte       `json:"qos"`
	Retain     bool       `json:"retain"`
	Properties Properties `json:"properties"`
}

// Refused is the peer's no.
type Refused struct {
	Text string
	Code int
}

func (r Refused) Error() string { return r.Text }

var writing sync.Mutex

// Emit writes one line; callable from any goroutine.
func Emit(fields any) {
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	writing.Lock()
	defer writing.Unlock()
	fmt.Fprintf(os.Stdout, "%s\n", line)
}

// EmitClosed tells that a connection ended; code is nil where nobody said why.
func EmitClosed(name string, code *int) {
	Emit(map[string]any{"event": "closed", "name": name, "reason_code": code})
}

// Number gives a pointer, for optional fields.
func Number(n int) *int { return &n }

// Serve answers commands until stdin ends.
func Serve(client string, handle func(*Command) (Answer, error)) {
	Emit(map[string]any{"event": "ready", "client": client})
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 8<<20)
	for input.Scan() {
		var command Command
		if err := json.Unmarshal(input.Bytes(), &command); err != nil {
			panic(err)
		}
		answer, err := handle(&command)
		if err != nil {
			fields := map[string]any{"id": command.ID, "ok": false, "error": err.Error()}
			var refused Refused
			if errors.As(err, &refused) {
				fields["reason_code"] = refused.Code
			}
			Emit(fields)
			continue
		}
		Emit(struct {
			ID int  `json:"id"`
			OK bool `json:"ok"`
			Answer
		}{command.ID, true, answer})
	}
}
