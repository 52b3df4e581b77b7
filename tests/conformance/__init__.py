"""Every normative statement of MQTT 3.1.1 and 5.0, proven by a test that speaks to a broker.

A test carries the statements it proves: `@pytest.mark.mqtt5("3.1.0-1", "3.1.0-2")`, `@pytest.mark.mqtt3("3.1.0-1")`.
statements/*.toml says of each label who is bound and what we do, in our own words:

    [mqtt5."3.1.0-1"]
    side = "both"            # server, client, both
    behaviour = "A first packet that is not CONNECT closes the connection; nothing is sent."

A statement that only binds clients has no test but a `reason`; one that is not obeyed yet has `pending = true` and a
`reason`. Where the standard leaves a choice, `choice` says what we chose and `setting` what changes it: a key of
docs/config.md, like `limits.maximum_qos`.
"""
