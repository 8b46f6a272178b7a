"""Tests of the copies of sessions."""
