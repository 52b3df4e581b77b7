"""Where the engine meets the operating system: sockets and event loops."""
