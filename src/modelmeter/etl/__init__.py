"""Sources of events: files (`etl load`) and made-up models (`etl demo`), sent over HTTP like anyone's.

sender   posts bodies; retries with the same Idempotency-Key
source   CSV, Parquet and NDJSON files, read lazily
table    rows of a file to event columns
load     files in slices to the server, each slice once
demo     realistic streams with a drift and an incident
cli      the two commands
"""
