"""Journeys over real HTTP against started servers."""
