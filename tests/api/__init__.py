"""The routes and the strict door, over real HTTP against a started server."""
