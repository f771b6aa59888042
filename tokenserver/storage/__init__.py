"""SQL, the record, and Redis, the fast mirror: engines, transactions, the change feed, the embedded servers.

What the rows mean lives with each domain (`identity.models`, `tokens.models`, …).
"""
