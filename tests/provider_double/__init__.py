"""A strict provider of Chat Completions on loopback, in a process of its own, that plays scripts and every known fault.

It shares no code with the adapter that it tests. `client.ProviderDouble` starts it; `scripts` has the words for what it
plays.
"""
