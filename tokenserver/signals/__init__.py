"""What operators see of a process: its metrics, its log lines, its traces. Knows nothing of what the server does;
every room may import it.
"""
