"""Fuzzing: what reads bytes of strangers is fed with any, and must keep its properties."""
