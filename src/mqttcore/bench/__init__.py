"""The load generator behind `mqttcore bench`."""
