"""The workshop: carries turns out; beside the door, and neither knows the other."""
