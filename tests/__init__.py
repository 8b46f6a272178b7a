"""Tests; the files mirror `app/`."""
