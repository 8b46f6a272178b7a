"""The desk: the rules of turns, against a real database."""
