"""The door: HTTP in, JSON and SSE out; no SQL and no rules."""
