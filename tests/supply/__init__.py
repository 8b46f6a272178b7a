"""What Suricate is delivered with: packages, their licences, and the list of them that others read."""
