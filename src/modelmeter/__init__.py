"""modelmeter, a metrics server for AI model stats. The modules, in the order in which an event meets them:

web/ingest   HTTP body in, 202 out
arrow        how large an Arrow stream says it is, before anything unpacks it
decoder      JSON, NDJSON, Arrow -> Batch; what is refused and why
ingester     many Batches -> one message on the queue, one commit (group commit)
queue/       the contract and its implementations
worker       messages -> chunks + rollups + ledger + event alerts, one transaction a claim
chunk        Batch -> compressed columns, and back
rollup       fold a Batch into rollups; merge; stats of a rollup
sketch       the exponential histogram: add, merge, quantile
packed       many stored sketches at once: decode, merge, ranks
bins         the sketches of many series and windows at once
condition    `where=`: which events count
compactor    folds rollup partials and joins small chunks
comparison   two folded sides: how they differ, and the verdict; drift the same over time
reader/      answers from what is stored
dispatcher   notifications -> groups of alerts -> messages, delivered at least once
routing      where an alert goes; grouping: when its group tells; silence, inhibition, time_interval: when not
courier      sends messages, each destination in threads of its own
notify/      destinations, and the file that names them
store/       Postgres: the only place that knows SQL
web/         stats, events, comparisons, alerts, health; web/dashboard the pages
"""

__version__ = "0.1.0"
