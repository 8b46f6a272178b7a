"""The desk: the rules of turns. Each act takes the caller's transaction, and none commits."""
