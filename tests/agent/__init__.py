"""The loop, played by providers and tools that are made for it."""
