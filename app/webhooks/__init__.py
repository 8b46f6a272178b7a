"""What is told to URLs of a realm when turns end, wait, or sessions are archived."""
