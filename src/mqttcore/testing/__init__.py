"""For authors of plugins: the contracts of mqttcore as tests to inherit. Needs pytest and pytest-asyncio."""
