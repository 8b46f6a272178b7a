"""Tests of `app/providers`."""
