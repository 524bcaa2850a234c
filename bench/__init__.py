"""The load generator and the benchmark table. `script/bench --help` says what can be measured.

data        the events, and the bodies made of them
client      raw sockets: a cheap load generator, a keep-alive connection, the freshness probe
usage       CPU seconds and peak memory of a tree of processes, by role
launch      processes that are always ended: modelmeter with its Postgres, and the peers
report      tables, printed for people, as Markdown, or kept as JSON
ingest, floor, memory, stats, peers     one benchmark each
"""
