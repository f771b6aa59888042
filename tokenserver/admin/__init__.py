"""`/admin/*`: the log, the statistics, the signing keys. It joins what the rooms below know of themselves."""
