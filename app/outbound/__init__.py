"""The one way out: HTTP to addresses that callers or configuration name, and HTTP as streams of small pieces."""
