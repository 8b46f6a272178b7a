"""Tests about the repository itself: its shape, its documents, its walls."""
