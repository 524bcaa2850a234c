"""Destinations of notifications. So far the log: the ALERT line."""
