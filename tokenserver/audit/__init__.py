"""What happened, who did it and how it ended; written in the transaction of the change itself."""
