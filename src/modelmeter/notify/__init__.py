"""Destinations of notifications: log, webhooks, Alertmanager, whatever Apprise knows; the file that names them."""
