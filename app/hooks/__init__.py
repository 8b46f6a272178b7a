"""Who is asked on a turn's way: hooks that watch, deny or change, in Python or behind HTTP. Asking them is the agent's."""
