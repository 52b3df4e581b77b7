"""What `Broker.metrics()` is called in Prometheus: names and units by its conventions, one line of help each."""

from typing import NamedTuple

__all__ = ["COUNTERS", "GAUGES", "LABELLED", "PLUGIN_COUNTERS", "PLUGIN_GAUGES", "Labelled", "Named"]


class Named(NamedTuple):
    """One metric. name: without `mqttcore_` and, of a counter, without `_total`. scale: of ours to Prometheus' unit."""

    name: str
    help: str
    scale: float = 1


class Labelled(NamedTuple):
    """A family of counters: the rest of the key is the value of *label*."""

    name: str
    label: str
    help: str


# By the beginning of their keys.
LABELLED = {
    "packets_received_": Labelled("packets_received", "type", "Control packets from clients."),
    "packets_sent_": Labelled("packets_sent", "type", "Control packets to clients."),
    "messages_received_qos": Labelled("messages_received", "qos", "PUBLISH packets from clients."),
    "messages_sent_qos": Labelled("messages_sent", "qos", "PUBLISH packets to clients."),
    "messages_dropped_": Labelled("messages_dropped", "reason", "Messages that a subscriber did not get."),
    "connections_refused_": Labelled("connections_refused", "reason", "Connections closed before their CONNECT."),
}

COUNTERS = {
    "bytes_received": Named("received_bytes", "Bytes from clients."),
    "bytes_sent": Named("sent_bytes", "Bytes to clients."),
    "message_bytes_received": Named("message_received_bytes", "Payload bytes from clients."),
    "message_bytes_sent": Named("message_sent_bytes", "Payload bytes to clients."),
    "messages_unmatched": Named("messages_unmatched", "Messages that matched no subscription."),
    "messages_handled": Named("messages_handled", "Messages that topic handlers took."),
    "handler_calls": Named("handler_calls", "Calls of topic handlers."),
    "handler_failures": Named("handler_failures", "Calls of topic handlers that raised."),
    "events_dropped": Named("events_dropped", "Events that the engine dropped."),
    "events_dropped_by_observers": Named("observer_events_dropped", "Events that full observers dropped."),
    "connects_accepted": Named("connects_accepted", "CONNECT packets answered with success."),
    "connects_refused": Named("connects_refused", "CONNECT packets refused."),
    "connects_shed": Named("connects_shed", "CONNECT packets refused because of overload, or for want of memory."),
    "connects_refused_flapping": Named("connects_refused_flapping", "CONNECT packets refused for too many."),
    "flapping_forgotten": Named("flapping_forgotten", "Clients that the table of flapping had no room for."),
    "connects_refused_banned": Named("connects_refused_banned", "CONNECT packets refused for a ban."),
    "protocol_errors": Named("protocol_errors", "Connections closed for what they sent."),
    "takeovers": Named("takeovers", "Connections replaced by another one of the same client."),
    "publishers_paused": Named("publishers_paused", "Times that a publisher was not read for a while."),
    "rate_limited": Named("rate_limited", "Times that a client was over its rates."),
    "subscriptions_refused": Named("subscriptions_refused", "Subscriptions refused."),
    "subscriptions_ignored": Named("subscriptions_ignored", "Subscriptions granted without effect."),
    "verdicts_judged": Named("verdicts_judged", "Permissions worked out for a topic."),
    "queued_paged_out": Named("queued_paged_out", "Queued messages that left memory for the store."),
    "queued_paged_in": Named("queued_paged_in", "Queued messages read back from the store."),
    "addresses_overflowed": Named("addresses_overflowed", "Connections not counted by address, the table being full."),
    "connections_lingering_cut": Named("lingering_connections_cut", "Closed connections cut off to make room."),
    "descriptors_exhausted": Named("descriptors_exhausted", "Times, looked for every second, that none was left."),
    "accept_pauses": Named("accept_pauses", "Times that accepting paused, for want of descriptors."),
    "http_connections_evicted": Named("http_connections_evicted", "HTTP connections cut off to make room."),
    "http_keys_refused": Named("http_keys_refused", "HTTP requests without a good API key."),
    "http_requests_throttled": Named("http_requests_throttled", "HTTP requests of an API key over its rate."),
    "http_keys_throttled": Named("http_keys_throttled", "HTTP requests after too many of those."),
    "proxy_headers_rejected": Named("proxy_headers_rejected", "Connections closed for their PROXY header."),
    "tls_handshakes": Named("tls_handshakes", "TLS handshakes done."),
    "tls_handshakes_failed": Named("tls_handshakes_failed", "TLS handshakes failed."),
    "tls_handshakes_resumed": Named("tls_handshakes_resumed", "TLS handshakes that resumed a session."),
    "handshakes_evicted": Named("handshakes_evicted", "Handshakes cut off to make room for newer ones."),
    "tls_reloads": Named("tls_reloads", "Times that certificate files were read again."),
    "authentications_timed_out": Named("authentications_timed_out", "Plugins that answered too late."),
    "authentications_refused_busy": Named("authentications_refused_busy", "Clients refused: too many were waiting."),
    "trace_entries": Named("trace_entries", "Entries that traces recorded."),
    "trace_entries_dropped": Named("trace_entries_dropped", "Of those, the ones that made room for newer ones."),
    "trace_entries_skipped": Named("trace_entries_skipped", "Entries that traces left out for their rate."),
    "traces_failed": Named("traces_failed", "Traces that an error ended."),
    "traces_forgotten": Named("traces_forgotten", "Ended traces that made room for new ones."),
    "store_commits": Named("store_commits", "Commits of the store."),
    "store_commit_failures": Named("store_commit_failures", "Commits of the store that failed."),
    "store_records_written": Named("store_records_written", "Records written to the store."),
    "store_records_deleted": Named("store_records_deleted", "Records deleted from the store."),
    "store_bytes_written": Named("store_written_bytes", "Bytes written to the store."),
    "store_commit_us_total": Named("store_commit_seconds", "Time spent in commits.", 1e-6),
    "store_reads": Named("store_reads", "Reads of the store."),
    "store_read_failures": Named("store_read_failures", "Reads of the store that failed."),
    "store_records_struck": Named("store_records_struck", "Records ended before they were written."),
}

GAUGES = {
    "clients_flapping": Named("clients_flapping", "Clients refused for connecting too often."),
    "flapping_watched": Named("flapping_watched", "Clients whose CONNECT packets are counted."),
    "bans": Named("bans", "Bans."),
    "handlers": Named("handlers", "Topic handlers."),
    "overloaded": Named("overloaded", "1 while new clients hear Server busy."),
    "memory_resident_bytes": Named("memory_resident_bytes", "Resident memory of the process."),
    "memory_maximum_bytes": Named("memory_maximum_bytes", "What that should not exceed; 0: no maximum."),
    "memory_short": Named("memory_short", "1 while there are no new sessions for want of memory."),
    "memory_full": Named("memory_full", "1 while nothing may grow for want of memory."),
    "rights_shared": Named("rights_shared", "Distinct sets of permissions."),
    "verdicts_remembered": Named("verdicts_remembered", "Permissions remembered per topic."),
    "listeners_stopped": Named("listeners_stopped", "Listeners that were stopped."),
    "connections": Named("connections", "Connections."),
    "connections_lingering": Named("lingering_connections", "Closed connections whose peers have not closed as well."),
    "connections_peak": Named("connections_peak", "Most connections at a time."),
    "sessions": Named("sessions", "Sessions, connected or not."),
    "sessions_connected": Named("sessions_connected", "Sessions with a connection."),
    "subscriptions": Named("subscriptions", "Subscriptions."),
    "shared_groups": Named("shared_groups", "Shared subscriptions, each counted once."),
    "retained": Named("retained_messages", "Retained messages."),
    "retained_bytes": Named("retained_bytes", "Bytes of retained messages."),
    "in_flight": Named("in_flight_messages", "Messages sent and not acknowledged."),
    "awaiting_release": Named("awaiting_release_messages", "QoS 2 messages that wait for PUBREL."),
    "queued": Named("queued_messages", "Messages queued for sessions."),
    "queued_kept_back": Named("queued_kept_back", "Queued messages that go only when a plugin lets them."),
    "queued_bytes": Named("queued_bytes", "Bytes queued for sessions."),
    "taps": Named("taps", "Streams of messages into the process."),
    "addresses_counted": Named("addresses_counted", "Client addresses that limits keep count of."),
    "http_connections": Named("http_connections", "Connections that speak HTTP, WebSocket clients apart."),
    "http_key_addresses": Named("http_key_addresses", "Addresses that wrong API keys are counted for."),
    "handshakes_under_way": Named("handshakes_under_way", "PROXY headers and TLS handshakes under way."),
    "tls_alarms": Named("tls_alarms", "Listeners whose new certificate files cannot be used."),
    "observers": Named("observers", "Observers of events."),
    "events_queued": Named("events_queued", "Events that wait for observers."),
    "batch_taps": Named("batch_taps", "Functions that are given messages in batches."),
    "batch_taps_queued": Named("batch_taps_queued_messages", "Messages that wait for them."),
    "repeating_calls": Named("repeating_calls", "Functions called again and again."),
    "alarms": Named("alarms", "Alarms that are raised."),
    "authentications_waiting": Named("authentications_waiting", "Clients that wait for a plugin's answer."),
    "store_commit_us_maximum": Named("store_commit_maximum_seconds", "Longest commit.", 1e-6),
    "store_pending_bytes": Named("store_pending_bytes", "Bytes on their way to the store."),
    "store_failing": Named("store_failing", "1 while commits fail."),
    "traces_running": Named("traces_running", "Traces that are running."),
    "traces_held": Named("traces_held", "Traces, running or ended."),
    "trace_bytes": Named("trace_held_bytes", "Memory that the entries of traces take."),
    "tls_certificate_seconds_left": Named("tls_certificate_left_seconds", "Until the first certificate expires."),
}

# Of every plugin; what it counts itself is of unknown type.
PLUGIN_COUNTERS = {
    "errors": Named("plugin_errors", "Failures of a plugin's hooks."),
    "events_dropped": Named("plugin_events_dropped", "Events that a plugin was too slow for."),
}
PLUGIN_GAUGES = {"events_queued": Named("plugin_events_queued", "Events that wait for a plugin.")}
