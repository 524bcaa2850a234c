"""The HTTP edge: ingest, stats, events, health, metrics."""
