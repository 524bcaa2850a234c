"""modelmeter, a metrics server for AI model stats. The modules, in the order in which an event meets them:

web/ingest   HTTP body in, 202 out
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
packer       a claim's events -> what is to be written of them
compactor    folds rollup partials and joins small chunks
partitioner  makes partitions ahead, drops those over their retention
corrector    takes events out again, at every resolution
fold         the fold of any span from as few rows as will do; pieces: the plan of it
series       the source of PromQL's evaluation; promql/ the evaluator, pure
comparison   two folded sides: how they differ, and the verdict; drift the same over time
reader/      answers from what is stored
rule/        the rule file; template/ its annotations
alert        the states of an alert and their transitions; judge: what one evaluation finds
evaluator    judges all rules on their intervals; rule_book, rule_reads, recorder are what it uses
backtest     what a rule would have done; unit_test: what promtool's files say that it does
dispatcher   notifications -> groups of alerts -> messages, delivered at least once
routing      where an alert goes; grouping: when its group tells; silence, inhibition, time_interval: when not
courier      sends messages, each destination in threads of its own
notify/      destinations, and the file that names them
store/       Postgres: the only place that knows SQL
web/         stats, events, comparisons, alerts, health; web/dashboard the pages
"""

__version__ = "0.1.0"
