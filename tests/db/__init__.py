"""Tests of Postgres: how it is started, reached and laid out."""
