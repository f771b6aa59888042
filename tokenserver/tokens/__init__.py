"""What is issued and how it ends: access tokens, refresh families, sessions, the key ring, the one cutoff rule.

Knows subject ids, client ids and scopes; people live in `identity`, rights in `access`, programs in `clients`,
and the wire in `oauth`.
"""
