"""The workshop: pools of attempts on one real database."""
