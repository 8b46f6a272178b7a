"""Where everything is built, from the settings: opened in order, closed in reverse."""
