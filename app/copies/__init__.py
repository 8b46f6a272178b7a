"""Copies of sessions: forks, exports as documents, and sessions that begin from such a document."""
