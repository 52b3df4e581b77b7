"""`python -m mqttcore`."""

from mqttcore.cli import main

main(prog_name="mqttcore")
