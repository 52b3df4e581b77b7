"""Our codec against others': the same bytes, valid and damaged, and every difference explained by a named rule.

codecs.py asks the others, packets.py makes the bytes, rules.py explains. A case that showed a fault of ours becomes a
row in tests/vectors. MQTTCORE_DIFFERENTIAL_PACKETS: how many are tried per codec and version, 20,000 by default.
"""
