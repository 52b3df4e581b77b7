"""The Alibaba profile: plugins that make a broker behave like Alibaba Cloud's Message Queue for MQTT (README.md)."""
