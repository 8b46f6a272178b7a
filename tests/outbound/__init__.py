"""The way out, without the rest of the house."""
