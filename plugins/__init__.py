"""First-party plugins, one folder each; they use only what `mqttcore` exports."""
