"""The ledger: append-only, numbered per session; the one place that writes and reads events."""
