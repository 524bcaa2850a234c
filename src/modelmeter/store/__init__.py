"""The store: Postgres, and the only place that knows its SQL."""
