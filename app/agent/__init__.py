"""The loop: one attempt at a turn as an async generator; it knows no SQL and no HTTP."""
