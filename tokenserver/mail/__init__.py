"""Mail that the server sends: the queue in SQL, how a letter becomes a message, and the ways it leaves by.

What is in a letter and who gets it lives in `identity.letters`.
"""
